"""A whole study, from texts and weights to the page: what it leaves behind, and whether its numbers are right."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from inferometer.attention.eviction_tables import EVICTED, EVICTION
from inferometer.attention.tables import (
    ATTENTION_SCHEMES,
    HEADS,
    MAPS,
    PHASES,
    POSITIONS,
    RESIDUALS,
    ROUNDED,
    SINKS,
)
from inferometer.calibration.tables import ACTIVATIONS, HISTOGRAMS, RANGES, SURFACES, WEIGHTS
from inferometer.capacity.tables import (
    INTENSITY,
    MACHINE,
    MACHINE_SAMPLES,
    PARAMETERS,
    REQUESTS,
    RIDGES,
    STORED,
    STUDIES,
)
from inferometer.capacity.tables import WEIGHTS as PREDICTED_WEIGHTS
from inferometer.claims.tables import CLAIMS
from inferometer.evaluation.tables import (
    ACCURACY,
    CHOICES,
    FIDELITY,
    GAINS,
    LAYERS,
    PERPLEXITY,
    SCHEMES,
    SENSITIVITY,
    STORAGE,
)
from inferometer.evaluation.tables import WINDOWS as SCORES
from inferometer.fundamentals.tables import DECODER_CHECKS, DECODER_LATENCY, DECODER_SPEED, DIGIT_ACCURACY, DIGITS
from inferometer.generation.tables import (
    DIVERSITY,
    FEATURES,
    INSERTED,
    INSERTIONS,
    LOGGED,
    SAMPLES,
    TEMPERATURES,
    WRITTEN,
)
from inferometer.kv_cache.tables import (
    CACHE_CHOICES,
    CACHE_LATENCY,
    CACHE_LENGTHS,
    CACHE_MEMORY,
    CACHE_PAIRS,
    CACHE_PERPLEXITY,
    CACHE_TRACE,
    KV_CACHE,
)
from inferometer.manifest import Manifest
from inferometer.profiling.tables import (
    BASELINE,
    CACHE,
    CACHE_CHECKS,
    CACHE_SPEED,
    KERNEL_SPEED,
    KERNELS,
    KNEES,
    LATENCY,
    MEMORY,
    PROFILE,
    SLOPES,
)
from inferometer.provenance.tables import RULES
from inferometer.rotation.tables import BASIS, PATHS
from inferometer.runs import RUN
from inferometer.smoothing.tables import ALPHAS, SCALES, SITES
from inferometer.sources.tables import CORPUS, QUESTIONS
from inferometer.tables import Table, read_table, records
from tests.tiny import tiny_texts
from tests.workflow.conftest import Finished
from tests.workflow.snakemake_runs import (
    CACHE_POLICIES,
    CHOOSING,
    ITEMS,
    ROTATED,
    SEARCHED,
    SENSITIVE,
    SENSITIVITY_TOKENS,
    SMOOTHED,
    WINDOW_TOKENS,
    WINDOWS,
    Study,
)
from tests.workflow.snakemake_runs import SCHEMES as STUDY_SCHEMES

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study

CAPACITY = (PARAMETERS, PREDICTED_WEIGHTS, REQUESTS, INTENSITY, RIDGES, STUDIES, STORED, MACHINE_SAMPLES)
TABLES: dict[str, Table] = {
    "sources/corpora/calibration-text.parquet": CORPUS,
    "sources/corpora/evaluation-text.parquet": CORPUS,
    "sources/questions/quiz.parquet": QUESTIONS,
    "tiny/calibration/activations.parquet": ACTIVATIONS,
    "tiny/calibration/weights.parquet": WEIGHTS,
    "tiny/calibration/histograms.parquet": HISTOGRAMS,
    "tiny/calibration/surfaces.parquet": SURFACES,
    "tiny/calibration/run.parquet": RUN,
    **{
        f"tiny/smoothing/{scheme}/{name}.parquet": table
        for scheme in SMOOTHED
        for name, table in (("scales", SCALES), ("sites", SITES), ("alphas", ALPHAS), ("run", RUN))
    },
    "tiny/rotation/0/paths.parquet": PATHS,
    "tiny/rotation/0/basis.parquet": BASIS,
    "tiny/rotation/0/run.parquet": RUN,
    **{
        f"tiny/evaluation/{scheme}/{name}.parquet": table
        for scheme in STUDY_SCHEMES
        for name, table in (
            ("perplexity", SCORES),
            ("fidelity", FIDELITY),
            ("choices", CHOICES),
            ("layers", LAYERS),
            ("storage", STORAGE),
            ("run", RUN),
        )
    },
    f"tiny/evaluation/{SENSITIVE}/sensitivity.parquet": SENSITIVITY,
    f"tiny/evaluation/{SENSITIVE}/sensitivity-run.parquet": RUN,
    **{f"capacity/{table.path.split('/')[-1]}": table for table in CAPACITY},
    "machine.parquet": MACHINE,
    "provenance/rules.parquet": RULES,
    **{
        f"{model}/profiling/{name}.parquet": table
        for model in ("tiny", "shape")
        for name, table in (("latency", LATENCY), ("latency-run", RUN), ("memory", MEMORY), ("memory-run", RUN))
    },
    **{
        f"tiny/profiling/{name}.parquet": table
        for name, table in (
            ("cache", CACHE),
            ("cache_checks", CACHE_CHECKS),
            ("cache-run", RUN),
            ("kernels", KERNELS),
            ("baseline", BASELINE),
            ("baseline-run", RUN),
        )
    },
    "summary/profiling.parquet": PROFILE,
    "summary/knees.parquet": KNEES,
    "summary/memory.parquet": SLOPES,
    "summary/cache.parquet": CACHE_SPEED,
    "summary/kernels.parquet": KERNEL_SPEED,
    **{
        f"tiny/kv_cache/{policy}/{name}.parquet": table
        for policy in CACHE_POLICIES
        for name, table in (
            ("perplexity", CACHE_PERPLEXITY),
            ("choices", CACHE_CHOICES),
            ("latency", CACHE_LATENCY),
            ("memory", CACHE_MEMORY),
        )
    },
    **{f"tiny/kv_cache/{policy}/trace.parquet": CACHE_TRACE for policy in CHOOSING},
    "tiny/kv_cache/run.parquet": RUN,
    "summary/kv_cache.parquet": KV_CACHE,
    "summary/kv_cache_lengths.parquet": CACHE_LENGTHS,
    "summary/kv_cache_pairs.parquet": CACHE_PAIRS,
    "tiny/generation/written.parquet": WRITTEN,
    "tiny/generation/features.parquet": FEATURES,
    "tiny/generation/insertions.parquet": INSERTIONS,
    "tiny/generation/run.parquet": RUN,
    "tiny/generation/samples.parquet": SAMPLES,
    "tiny/generation/samples-run.parquet": RUN,
    "tiny/generation/diversity.parquet": DIVERSITY,
    "summary/generation.parquet": LOGGED,
    "summary/insertions.parquet": INSERTED,
    "summary/diversity.parquet": TEMPERATURES,
    "tiny/attention/heads.parquet": HEADS,
    "tiny/attention/positions.parquet": POSITIONS,
    "tiny/attention/maps.parquet": MAPS,
    "tiny/attention/residuals.parquet": RESIDUALS,
    "tiny/attention/run.parquet": RUN,
    "tiny/attention/rounded.parquet": ROUNDED,
    "tiny/attention/rounded-run.parquet": RUN,
    "tiny/attention/eviction.parquet": EVICTION,
    "tiny/attention/eviction-run.parquet": RUN,
    "summary/eviction.parquet": EVICTED,
    "summary/sinks.parquet": SINKS,
    "summary/phases.parquet": PHASES,
    "summary/attention_schemes.parquet": ATTENTION_SCHEMES,
    "fundamentals/digits.parquet": DIGITS,
    "fundamentals/digits-run.parquet": RUN,
    "fundamentals/decoder_checks.parquet": DECODER_CHECKS,
    "fundamentals/decoder_latency.parquet": DECODER_LATENCY,
    "fundamentals/decoder-run.parquet": RUN,
    "summary/digits.parquet": DIGIT_ACCURACY,
    "summary/decoder.parquet": DECODER_SPEED,
    "summary/perplexity.parquet": PERPLEXITY,
    "summary/gains.parquet": GAINS,
    "summary/schemes.parquet": SCHEMES,
    "summary/accuracy.parquet": ACCURACY,
    "summary/ranges.parquet": RANGES,
    "summary/runs.parquet": RUN,
    "claims.parquet": CLAIMS,
}
EMPTY = {"tiny/evaluation/fp/layers.parquet"}  # nothing is rounded
MEASURING_LOGS = [
    "calibrate/tiny.log",
    *(f"smooth/tiny/{scheme}.log" for scheme in SMOOTHED),
    "rotate/tiny/0.log",
    "evaluate_reference/tiny/fp.log",
    *(f"evaluate/tiny/{scheme}.log" for scheme in STUDY_SCHEMES if scheme != "fp"),
    f"measure_sensitivity/tiny/{SENSITIVE}.log",
    *(f"profile_{part}/{model}.log" for part in ("latency", "memory") for model in ("tiny", "shape")),
    *(f"profile_{part}/tiny.log" for part in ("cache", "baseline")),
    "trace_generation/tiny.log",
    "sample_generations/tiny.log",
    "capture_attention/tiny.log",
    "compare_attention/tiny.log",
    "evict_sinks/tiny.log",
    "quantize_digits.log",
    "time_decoder.log",
]


def test_a_whole_study_ends_well_with_a_page_that_names_its_model(study: Study) -> None:
    page = (study.results / "report.html").read_text(encoding="utf-8")
    assert "tiny" in page
    assert "A tiny study" in page


def test_the_default_profile_is_picked_up(finished: Finished) -> None:
    profile = finished.study.place.project / "profiles" / "default"
    assert f"Using workflow specific profile {profile}" in finished.outcome.sentence


def test_every_table_is_there_and_is_what_its_declaration_says(study: Study) -> None:
    for path, table in TABLES.items():
        assert (len(read_table(table, study.results / path)) > 0) == (path not in EMPTY), path


def test_no_table_is_left_that_no_declaration_covers(study: Study) -> None:
    found = {path.relative_to(study.results).as_posix() for path in study.results.rglob("*.parquet")}
    assert found == set(TABLES)


def test_predicted_bytes_are_the_measured_ones_without_buffers(study: Study) -> None:
    rows = read_table(STORED, study.results / "capacity/stored.parquet").set_index("scheme")
    assert set(rows.index) == set(STUDY_SCHEMES)
    buffers = sum(buffer.nbytes for buffer in plain_model(study).buffers())
    assert set(rows["difference_bytes"].drop("nf4-bnb")) == {buffers}
    assert "nf4" in rows["reason"]["nf4-bnb"]


def test_the_rule_graph_is_that_of_snakemake_itself(study: Study) -> None:
    drawn = study.snakemake("--rulegraph").output
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', drawn))
    edges = {(names[to], names[start]) for start, to in re.findall(r"(\d+) -> (\d+)", drawn)}
    found = read_table(RULES, study.results / "provenance/rules.parquet")
    assert set(zip(found["rule"], found["needs"], strict=True)) == {edge for edge in edges if edge[0] != "all"}


def test_the_page_says_what_ran_and_how_it_is_checked(study: Study) -> None:
    page = (study.results / "report.html").read_text(encoding="utf-8")
    assert "All of them ran in the call that drew this page." in page
    assert "kinds of machine" not in page
    [digests] = re.findall(r"<code>((?:[0-9a-f]{64}  results/\S+\n)+)</code>", page)
    assert {line.split("  results/")[1] for line in digests.splitlines()} == set(TABLES)
    written = yaml.safe_load((study.results / "provenance/configuration.yaml").read_text(encoding="utf-8"))
    assert written["study"]["models"] == ["tiny", "shape"]


def test_claims_are_judged_for_the_measured_model_and_none_of_them_fails(study: Study) -> None:
    claims = read_table(CLAIMS, study.results / "claims.parquet")
    assert set(claims["model"]) == {"", "tiny"}
    assert claims[claims["verdict"] == "failed"]["reason"].tolist() == []
    assert {"supported", "contradicted", "not testable here"} <= set(claims["verdict"])


def test_a_second_run_does_nothing(study: Study) -> None:
    again = study.snakemake()
    assert again.status == 0
    assert "Nothing to be done" in again.output
    assert again.jobs == set()


def test_an_evaluation_that_is_forced_again_writes_the_same_bytes(own_copy: Study) -> None:
    folder = own_copy.results / "tiny" / "evaluation" / "w8a8-smooth"
    results = ("perplexity", "fidelity", "choices", "layers", "storage")
    before = {name: (folder / f"{name}.parquet").read_bytes() for name in results}
    times = (folder / "run.parquet").read_bytes()
    target = "results/tiny/evaluation/w8a8-smooth/perplexity.parquet"
    outcome = own_copy.snakemake("--forcerun", "evaluate", targets=[target])
    assert outcome.jobs == {"evaluate tiny/w8a8-smooth"}
    assert {name: (folder / f"{name}.parquet").read_bytes() for name in results} == before
    assert (folder / "run.parquet").read_bytes() != times  # so it did run


def plain_windows(study: Study) -> Tensor:
    """Windows [windows, tokens], cut the plain way from the texts that the study evaluates on."""
    tokenizer = AutoTokenizer.from_pretrained(study.folder / "models" / "tiny")
    tokens = tokenizer("\n\n".join(tiny_texts(seed=2)), return_tensors="pt").input_ids[0]
    assert tokens.tolist()[30:32] == [tokenizer.unk_token_id] * 2  # the two newlines after a text of 30 words
    return torch.stack([tokens[k * WINDOW_TOKENS : (k + 1) * WINDOW_TOKENS] for k in range(WINDOWS)])


def plain_model(study: Study) -> PreTrainedModel:
    """The study's model, opened the plain way."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(study.folder / "models" / "tiny", dtype="auto")
    module: nn.Module = model
    module.eval()
    return model


@torch.no_grad()
def plain_losses(model: Callable[[Tensor], Tensor], windows: Tensor) -> list[float]:
    """Mean cross-entropy of each window, token by token predicted from those before it."""
    return [float(nn.functional.cross_entropy(model(window)[:-1], window[1:])) for window in windows]


def logits_of(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """The logits [tokens, vocabulary] of one window."""

    def logits(window: Tensor) -> Tensor:
        found: Tensor = model(window[None]).logits[0]
        return found

    return logits


def measured(study: Study, scheme: str) -> tuple[list[float], pd.Series]:
    """Window losses and the summary row of a scheme, as the study wrote them."""
    scores = read_table(SCORES, study.results / f"tiny/evaluation/{scheme}/perplexity.parquet")
    summary = read_table(PERPLEXITY, study.results / "summary/perplexity.parquet")
    row = summary[(summary["model"] == "tiny") & (summary["scheme"] == scheme)].iloc[0]
    return scores.sort_values("window")["nll"].tolist(), row


def assert_measured(study: Study, scheme: str, expected: list[float]) -> None:
    """The scheme's windows and its perplexity are those that were computed independently."""
    losses, row = measured(study, scheme)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert row["windows"] == WINDOWS
    assert row["tokens"] == WINDOWS * (WINDOW_TOKENS - 1)
    assert row["perplexity"] == pytest.approx(math.exp(sum(expected) / len(expected)), rel=1e-5)


def test_the_float_perplexity_is_what_plain_transformers_computes(study: Study) -> None:
    assert_measured(study, "fp", plain_losses(logits_of(plain_model(study)), plain_windows(study)))


def reference_rounding(values: Tensor, bits: int) -> Tensor:
    """Every vector along the last dimension rounded to its own grid, as the SmoothQuant reference does it."""
    largest = 2 ** (bits - 1) - 1
    scale = values.abs().max(dim=-1, keepdim=True)[0].clamp(min=1e-5).div(largest)
    return values.div(scale).round().mul(scale)


def round_like_the_reference(model: PreTrainedModel, bits: int) -> int:
    """Round weights per output channel and inputs per token in all linear layers of the decoder; returns how many."""

    def round_inputs(_layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (reference_rounding(arguments[0], bits),)

    decoder = model.get_submodule("model.layers")
    layers = [module for module in decoder.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        layer.weight.data = reference_rounding(layer.weight.data, bits)
        layer.register_forward_pre_hook(round_inputs)
    return len(layers)


@pytest.mark.parametrize(("scheme", "bits"), [("w8a8", 8), ("w4a4", 4)])
def test_rounding_costs_what_the_reference_way_of_rounding_costs(study: Study, scheme: str, bits: int) -> None:
    model = plain_model(study)
    assert round_like_the_reference(model, bits) == 3 * 7  # layers, and linear layers in each
    expected = plain_losses(logits_of(model), plain_windows(study))
    assert_measured(study, scheme, expected)
    in_float, _ = measured(study, "fp")
    assert expected != pytest.approx(in_float, rel=1e-4)  # so rounding is seen at all


def summary_of(study: Study, scheme: str) -> dict[str, object]:
    """The row of the table of all schemes."""
    table = read_table(SCHEMES, study.results / "summary/schemes.parquet")
    [row] = records(table[table["scheme"] == scheme])
    return row


def test_smoothing_and_rotation_change_what_rounding_costs(study: Study) -> None:
    plain = measured(study, "w8a8")[0]
    for scheme in SMOOTHED:
        assert plain != pytest.approx(measured(study, scheme)[0], rel=1e-6)
    storage = {scheme: summary_of(study, scheme) for scheme in ("w4a4", ROTATED)}
    head = 64 * 32 * 4  # the tied head of a rotated model has a weight of its own
    assert storage[ROTATED]["float_bytes"] == storage["w4a4"]["float_bytes"] + head  # type: ignore[operator]


def test_integers_that_are_multiplied_give_what_simulated_ones_give(study: Study) -> None:
    simulated, multiplied = (summary_of(study, scheme) for scheme in ("w8a8", "w8a8-integer"))
    assert measured(study, "w8a8-integer")[0] == measured(study, "w8a8")[0]
    assert multiplied["engine"] == "integer"
    assert multiplied["kernels"] is not None
    assert multiplied["rounded_bytes"] == simulated["rounded_bytes"]


def test_the_float_model_is_no_distance_from_itself_and_rounded_ones_are(study: Study) -> None:
    for scheme in STUDY_SCHEMES:
        row = summary_of(study, scheme)
        if scheme == "fp":
            assert (row["kl_divergence"], row["top_agreement"]) == (0, 1)
        elif row["skipped"] is None:
            assert 0 < row["kl_divergence"] < 10, scheme  # type: ignore[operator]


def test_a_search_tries_every_strength_at_each_site_and_chooses_one(study: Study) -> None:
    alphas = read_table(ALPHAS, study.results / f"tiny/smoothing/{SEARCHED}/alphas.parquet")
    by_site = alphas.groupby("site")
    assert len(by_site) == 3 * 4
    assert (by_site["alpha"].nunique() == 11).all()
    assert (by_site["chosen"].sum() == 1).all()
    best = alphas.loc[by_site["error"].idxmin()]
    assert best["chosen"].all()


def test_every_layer_is_rounded_alone_once(study: Study) -> None:
    rows = read_table(SENSITIVITY, study.results / f"tiny/evaluation/{SENSITIVE}/sensitivity.parquet")
    assert len(rows) == 3 * 7
    assert set(rows["tokens"]) == {SENSITIVITY_TOKENS}
    layers = read_table(LAYERS, study.results / f"tiny/evaluation/{SENSITIVE}/layers.parquet")
    assert set(rows["layer"]) == set(layers["layer"])


def test_every_scheme_answers_the_same_questions(study: Study) -> None:
    accuracy = read_table(ACCURACY, study.results / "summary/accuracy.parquet")
    ran = [scheme for scheme in STUDY_SCHEMES if summary_of(study, scheme)["skipped"] is None]
    assert sorted(accuracy["scheme"]) == sorted(ran)
    assert set(accuracy["items"]) == {ITEMS}


def test_a_scheme_of_a_library_ran_or_says_why_it_did_not(study: Study) -> None:
    row = summary_of(study, "nf4-bnb")
    assert row["engine"] == "bitsandbytes"
    if row["skipped"] is None:
        assert row["ratio"] is not None
    else:
        page = (study.results / "report.html").read_text(encoding="utf-8")
        assert "nf4-bnb could not be run" in page


def test_rarities_of_what_was_written_are_what_plain_transformers_computes(study: Study) -> None:
    features = read_table(FEATURES, study.results / "tiny/generation/features.parquet")
    for _, own in features.groupby("prompt"):
        tokens = torch.tensor(own.sort_values("position")["token"].tolist())
        with torch.no_grad():
            logits = logits_of(plain_model(study))(tokens)
        losses = nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none")
        assert own["rarity"].tolist()[1:] == pytest.approx(losses.tolist(), rel=1e-4)
        written = own["generated"].tolist()[1:]
        assert logits[:-1].argmax(dim=-1)[written].tolist() == tokens[1:][written].tolist()


def test_samples_are_as_likely_as_plain_transformers_computes(study: Study) -> None:
    folder = study.results / "tiny/generation"
    samples = read_table(SAMPLES, folder / "samples.parquet")
    features = read_table(FEATURES, folder / "features.parquet")
    compared = 0
    for prompt, asked in features[~features["generated"]].groupby("prompt"):
        before = asked.sort_values("position")["token"].tolist()
        row: Any
        for row in samples[(samples["prompt"] == prompt) & samples["ended_after"].isna()].itertuples():
            tokens = torch.tensor([*before, *map(int, row.token_ids.split())])
            with torch.no_grad():
                logits = logits_of(plain_model(study))(tokens)
            losses = nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none")
            assert row.nll == pytest.approx(float(losses[len(before) - 1 :].mean()), rel=1e-4)
            compared += 1
    assert compared >= 4


def test_attention_is_what_plain_transformers_own_weights_say(study: Study) -> None:
    heads = read_table(HEADS, study.results / "tiny/attention/heads.parquet")
    texts = plain_windows(study)[0].split(8)[:2]
    own = heads[(heads["input"] == "evaluation-text") & (heads["length"] == "short") & (heads["first_token"] == "own")]
    model = plain_model(study)
    model.set_attn_implementation("eager")
    for number, tokens in enumerate(texts):
        with torch.no_grad():
            attentions = model(tokens[None], output_attentions=True).attentions
        for layer, weights in enumerate(attentions):
            expected = weights[0, :, 2:, :2].sum(-1).mean(-1).tolist()
            rows = own[(own["text"] == number) & (own["layer"] == layer)].sort_values("head")
            assert rows["first_2"].tolist() == pytest.approx(expected, rel=1e-4)


def test_snakemakes_own_report_has_every_chapter_as_a_category(own_copy: Study) -> None:
    page = own_copy.folder / "report.html"
    outcome = own_copy.snakemake("--report", str(page))
    assert outcome.status == 0, outcome.output
    text = page.read_text(encoding="utf-8")
    for category in ("Calibration", "Smoothing", "Evaluation"):
        assert f'"{category}"' in text, category


def test_nothing_is_written_outside_the_folder_but_caches(finished: Finished) -> None:
    ours = {"hook", "overlays", "connections.txt"}
    left = [path for path in finished.outside if path.parts[0] not in ours]
    assert [path for path in left if path.parts[:2] != ("home", ".cache")] == []
    assert finished.project_after == finished.project_before


def test_a_shape_stands_in_the_report_as_a_shape_and_only_its_time_and_memory_are_measured(study: Study) -> None:
    folder = study.results / "shape"
    assert sorted(path.name for path in folder.iterdir()) == ["profiling", "sources"]
    manifest = Manifest.read(folder / "sources" / "model.json")
    assert manifest.random_weights
    assert manifest.seed == 7
    assert not list((folder / "sources" / "checkpoint").glob("*.safetensors"))
    page = " ".join((study.results / "report.html").read_text(encoding="utf-8").split())
    assert "<strong>shape</strong> has random weights: it stands for shapes only" in page
    summary = read_table(PERPLEXITY, study.results / "summary/perplexity.parquet")
    assert set(summary["model"]) == {"tiny"}


def test_every_measuring_job_leaves_a_log_of_its_phases(study: Study) -> None:
    for name in MEASURING_LOGS:
        text = (study.results / "logs" / name).read_text(encoding="utf-8")
        assert "load took" in text, name
        assert "compute took" in text, name
        assert text.rstrip().endswith("done"), name


def test_no_progress_bar_reaches_output_that_is_no_terminal(finished: Finished) -> None:
    logs = "".join(path.read_text(encoding="utf-8") for path in finished.study.results.rglob("*.log"))
    for text in (finished.outcome.output, logs):
        assert "it/s" not in text
        assert "%|" not in text
        assert "\r" not in text


def test_a_run_leaves_no_half_written_files(study: Study) -> None:
    left = [path for pattern in ("*.partial", "*.retired") for path in study.folder.rglob(pattern)]
    assert left == []


def test_figures_are_pictures_of_the_declared_kinds(study: Study) -> None:
    results: Path = study.results
    for name in (
        "summary/perplexity.svg",
        "summary/pareto.svg",
        "tiny/calibration/distributions.svg",
        f"tiny/evaluation/{SENSITIVE}/sensitivity.svg",
        f"tiny/smoothing/{SEARCHED}/alphas.svg",
    ):
        assert "<svg" in (results / name).read_text(encoding="utf-8"), name
    for tensor in ("activation", "weight"):
        picture = results / f"tiny/calibration/surfaces-{tensor}.png"
        assert picture.read_bytes().startswith(b"\x89PNG"), tensor
