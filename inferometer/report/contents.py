"""What goes on the page, gathered from a folder of results and the configuration that made them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from inferometer.calibration.tables import RANGES
from inferometer.capacity.tables import MACHINE
from inferometer.errors import InferometerError
from inferometer.evaluation.tables import ACCURACY, GAINS, PERPLEXITY, SCHEMES
from inferometer.layers import chosen_layers
from inferometer.manifest import Manifest
from inferometer.report import marks, sentences
from inferometer.report.answers import answers, sampled
from inferometer.report.attention import attention
from inferometer.report.capacity import capacity
from inferometer.report.claims import claims
from inferometer.report.decision import decision
from inferometer.report.describe import changes
from inferometer.report.eviction import eviction
from inferometer.report.formulas import formulas
from inferometer.report.fundamentals import fundamentals
from inferometer.report.generation import generation
from inferometer.report.glossary import glossary
from inferometer.report.kv_cache import kv_cache
from inferometer.report.machine import machine
from inferometer.report.machines import differences, kinds
from inferometer.report.page import Figure
from inferometer.report.profiling import profiling
from inferometer.report.reading import read_table, without_rows
from inferometer.report.reproduce import reproduce
from inferometer.report.sections import Gathering
from inferometer.report.sources import sources
from inferometer.rotation.tables import BASIS, PATHS
from inferometer.runs import RUN
from inferometer.smoothing.tables import ALPHAS, SITES
from inferometer.tables import Table


@dataclass(frozen=True)
class Smoothing:
    """One smoothed scheme of one model."""

    scheme: str
    change: str
    sites: pd.DataFrame
    alphas: pd.DataFrame | None
    figures: list[Figure]


@dataclass(frozen=True)
class Rotation:
    """One rotation of one model, with the schemes that use it."""

    seed: int
    schemes: list[str]
    paths: pd.DataFrame
    basis: pd.DataFrame


@dataclass(frozen=True)
class Model:
    """One model of the study with all that the page shows of it alone."""

    name: str
    manifest: Manifest
    licence: str | None
    attribution: str | None
    caveat: str | None
    middle_layer: int
    shown_layers: list[str]
    ranges: Mapping[tuple[str, bool], Any]
    calibration_figures: list[Figure]
    smoothings: list[Smoothing]
    rotations: list[Rotation]
    sensitivity_figures: list[Figure]


def _calibration_figures(folder: Path, model: str, ranges: pd.DataFrame, middle_layer: int) -> list[Figure]:
    known = model in set(ranges["model"])
    return [
        Figure(
            folder / "distributions.svg",
            "Weights (left) beside the inputs that meet them (right), on one axis: share of values per octave. The "
            "wider a curve reaches, the coarser the grid that has to span it; a hump far out is a channel of its own.",
            f"Line charts of the distributions of {model}'s weights and activations in the chosen decoder layers.",
        ).saying([sentences.ranges(ranges, model, middle_layer)] if known else []),
        Figure(
            folder / "surfaces-activation.png",
            "Magnitudes of inputs over the first tokens of one window. A wall along the token axis is a channel that "
            "is large for every token; a lone spike is a single token's. Each point is the maximum of its block.",
            f"3D surfaces of {model}'s activation magnitudes by token and channel.",
        ).saying([sentences.massive(ranges, model)] if known else []),
        Figure(
            folder / "surfaces-weight.png",
            "Magnitudes of the weights that read these inputs, drawn the same way: compare the heights.",
            f"3D surfaces of {model}'s weight magnitudes by output and input channel.",
        ),
    ]


def _smoothing(folder: Path, model: str, scheme: str, entry: Mapping[str, Any]) -> Smoothing:
    table = read_table(SITES, folder / "sites.parquet")
    figures = [
        Figure(
            folder / "channels.svg",
            "Largest magnitude of each channel before and after, at the norms of the middle decoder layer: what inputs "
            "lose, weights take on. The legend says how far the largest channel stands above the median one.",
            f"Line charts of {model}'s channel magnitudes before and after {scheme}.",
        ).saying([sentences.smoothing(table)])
    ]
    searched = isinstance(entry["smoothing"]["alpha"], str)
    alphas = read_table(ALPHAS, folder / "alphas.parquet") if searched else None
    if alphas is not None:
        figures.append(
            Figure(
                folder / "alphas.svg",
                "Squared error of the layers' outputs on calibration text, over their power, against the strength of "
                "smoothing: median and quartiles over the sites of a kind, and how many sites got which strength.",
                f"Line chart of {model}'s output error by alpha under {scheme}, and a bar chart of the chosen alphas.",
            ).saying([sentences.search(alphas)])
        )
    return Smoothing(scheme, changes(entry), table, alphas, figures)


def _rotations(folder: Path, schemes: Mapping[str, Any]) -> list[Rotation]:
    users: dict[int, list[str]] = {}
    for scheme, entry in schemes.items():
        if "rotation" in entry:
            users.setdefault(entry["rotation"]["seed"], []).append(scheme)
    return [
        Rotation(
            seed,
            names,
            read_table(PATHS, folder / str(seed) / "paths.parquet"),
            read_table(BASIS, folder / str(seed) / "basis.parquet"),
        )
        for seed, names in users.items()
    ]


def _sensitivity_figure(folder: Path, model: str, scheme: str) -> Figure:
    return Figure(
        folder / scheme / "sensitivity.svg",
        f"KL divergence from the float model when {scheme} rounds this one layer and leaves all others in float, on a "
        "logarithmic scale.",
        f"Heat map of {model}'s sensitivity to {scheme} by decoder layer and kind of layer.",
    )


def _model(name: str, config: Mapping[str, Any], results: Path, ranges: pd.DataFrame, gather: Gathering) -> Model:
    entry, folder = config["models"][name], results / name
    if not (described := folder / "sources/model.json").exists():
        raise InferometerError(f"the manifest {described} is missing.")
    manifest = Manifest.read(described)
    shown = chosen_layers(config["calibration"]["layers"], manifest.layers)
    rows = ranges[(ranges["model"] == name) & ranges["decoder_layer"].isin(shown)]
    rows = rows.sort_values(["decoder_layer", "layer"])
    middle = (manifest.layers - 1) // 2
    measured = {} if manifest.random_weights else {own: config["schemes"][own] for own in config["study"]["schemes"]}
    sensitive = [] if manifest.random_weights else config["evaluation"]["sensitivity"]["schemes"]
    return Model(
        name=name,
        manifest=manifest,
        **{key: entry.get(key) for key in ("licence", "attribution", "caveat")},
        middle_layer=middle,
        shown_layers=list(dict.fromkeys(rows["layer"])),
        ranges={(str(row.layer), bool(row.first_token)): row for row in rows.itertuples()},
        calibration_figures=[]
        if manifest.random_weights
        else _calibration_figures(folder / "calibration", name, ranges, middle),
        smoothings=gather(
            "smoothing",
            lambda: [
                _smoothing(folder / "smoothing" / scheme, name, scheme, entry)
                for scheme, entry in measured.items()
                if "smoothing" in entry
            ],
            [],
        ),
        rotations=gather("rotation", lambda: _rotations(folder / "rotation", measured), []),
        sensitivity_figures=[_sensitivity_figure(folder / "evaluation", name, scheme) for scheme in sensitive],
    )


def _in_study_order(table: pd.DataFrame, study: Mapping[str, Any]) -> pd.DataFrame:
    """Rows in the order in which the study lists its models and schemes."""
    places = {name: place for place, name in enumerate([*study["models"], *study["schemes"]])}
    return table.sort_values(["model", "scheme"], key=lambda column: column.map(places), ignore_index=True)


def _range_of_decoder_layer(ranges: pd.DataFrame, model: str, decoder_layer: int) -> dict[str, float]:
    """The range of all linear layers of a decoder layer together, first tokens counted."""
    rows = ranges[(ranges["model"] == model) & (ranges["decoder_layer"] == decoder_layer) & ranges["first_token"]]
    sides = [(what, end) for what in ("weight", "activation") for end in ("min", "max")]
    return {f"{what}_{end}": float(rows[f"{what}_{end}"].agg(end)) for what, end in sides}


def _compared_ranges(models: list[Model], ranges: pd.DataFrame, reported: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Ranges of one decoder layer with a label: those that the source study reports, then ours."""
    theirs = [(f"{name} (reported)", values) for name, values in reported["ranges"]["models"].items()]
    ours = [
        (
            f"{model.name}, layer {model.middle_layer} (measured)",
            _range_of_decoder_layer(ranges, model.name, model.middle_layer),
        )
        for model in models
        if not model.manifest.random_weights
    ]
    return theirs + ours


def _tokens_per_s(runs: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Tokens a second of each evaluation's pass over the text, by model and scheme."""
    rows = runs[runs["forward_s"].notna()]
    return dict(zip(zip(rows["model"], rows["scheme"], strict=True), rows["tokens"] / rows["forward_s"], strict=True))


def _peaks(results: Path) -> pd.DataFrame:
    """The MACHINE table, without rows where no chapter of the study needs it."""
    path = results / "machine.parquet"
    return read_table(MACHINE, path) if path.exists() else without_rows(MACHINE)


def contents(
    config: Mapping[str, Any], results: Path, reported: Path, jobs: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Everything that the templates use, by name, for the study that `config` describes.

    `results` is the folder of tables and figures, `reported` the file of figures that the source studies printed, in a
    folder of the workflow's. `jobs` are the study's: for each its `rule`, and `outputs` and `benchmark` in `results`.
    What a section lacks is among the `absences`, by the section's name, and takes nothing from the other sections.
    """
    root = reported.resolve().parents[1]
    study, summary = config["study"], results / "summary"
    printed = yaml.safe_load(reported.read_text(encoding="utf-8"))
    gather = Gathering(tuple(study["chapters"]))

    def of_schemes(table: Table, file: str) -> pd.DataFrame:
        rows = gather("evaluation", lambda: read_table(table, summary / file), without_rows(table))
        return _in_study_order(rows, study)

    schemes = of_schemes(SCHEMES, "schemes.parquet")
    gather.silences("evaluation", "decision")
    ranges = gather("calibration", lambda: read_table(RANGES, summary / "ranges.parquet"), without_rows(RANGES))
    runs = gather("machine", lambda: read_table(RUN, summary / "runs.parquet"), without_rows(RUN))
    unlike = differences(runs, gather("profiling", lambda: _peaks(results), without_rows(MACHINE)))
    models = [
        model
        for name in study["models"]
        if (model := gather("sources", partial(_model, name, config, results, ranges, gather), None))
    ]
    compared: list[tuple[str, Any]] = gather("calibration", lambda: _compared_ranges(models, ranges, printed), [])
    gather.silences("sources", "calibration", "smoothing", "rotation")  # these go model by model
    accuracy = of_schemes(ACCURACY, "accuracy.parquet")
    perplexity = gather(
        "evaluation", lambda: read_table(PERPLEXITY, summary / "perplexity.parquet"), without_rows(PERPLEXITY)
    )
    counts = sampled(perplexity, accuracy)
    manifests = [model.manifest for model in models]
    chapters = {
        "profiling": gather.whole("profiling", lambda: profiling(config, results, printed)),
        "kv_cache": gather.whole("kv_cache", lambda: kv_cache(config, results, printed)),
        "generation": gather.whole("generation", lambda: generation(config, results, printed)),
        "attention": gather.whole("attention", lambda: attention(config, results, printed)),
        "eviction": gather.whole("attention", lambda: eviction(config, results, printed)),
    }
    return {
        "answers": answers(config, schemes, runs, unlike, manifests, counts, chapters),
        "sampled": counts,
        "scheme_marks": marks.of_schemes(manifests, config["schemes"], schemes),
        "formulas": formulas(reported.parent / "formulas.yaml"),
        "glossary": glossary(reported.parent / "glossary.yaml"),
        "version": version("inferometer"),
        "results": results,
        "title": study["title"],
        "models": models,
        "compared_ranges": compared,
        "measured": {(row.model, row.scheme): row for row in schemes[schemes["ratio"].notna()].itertuples()},
        "measured_models": list(dict.fromkeys(schemes["model"])),
        "decision": gather.whole("decision", lambda: decision(results, schemes, config["evaluation"]["reference"])),
        "machine": gather.whole("machine", lambda: machine(results, root, jobs)),
        "sources": gather.whole("sources", lambda: sources(config, results)),
        "reproduce": gather.whole("reproduce", lambda: reproduce(config, results, root, jobs)),
        "schemes": {scheme: config["schemes"][scheme] for scheme in study["schemes"]},
        "reference": config["evaluation"]["reference"],
        "evaluation": config["evaluation"],
        "summary": schemes,
        "tokens_per_s": _tokens_per_s(runs),
        "accuracy": accuracy,
        "gains": of_schemes(GAINS, "gains.parquet"),
        "calibration": config["calibration"],
        "claims": gather.whole("claims", lambda: claims(results)),
        "ranges": ranges,
        "runs": runs,
        "machine_kinds": kinds(runs),
        "unlike_machines": unlike,
        "perplexity_figure": Figure(
            summary / "perplexity.svg",
            "Perplexity of each scheme over that of the float model, with paired 95 % intervals: all schemes on a "
            "logarithmic axis, and those close to float enlarged.",
            "Dot chart of perplexity ratios with intervals, by scheme.",
        ),
        "pareto_figure": Figure(
            summary / "pareto.svg",
            "Perplexity above that of the float model against the exact bytes of all weights, both logarithmic, with "
            "95 % intervals; what is within 0.1 % of float stands at the foot. The line joins the schemes that no "
            "other one beats in both.",
            "Scatter chart of excess perplexity against bytes, with the Pareto front.",
        ),
        "capacity": gather.whole("capacity", lambda: capacity(config, results)),
        "fundamentals": gather.whole("fundamentals", lambda: fundamentals(config, results, printed)),
        **chapters,
        "reported": printed,
        "absences": gather.absences,
        "unanswered": gather.unanswered(),
    }
