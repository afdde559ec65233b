"""Only what is stale reruns: for every kind of change, exactly the jobs that it concerns, by real dry runs."""

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_checkpoint
from tests.workflow.snakemake_runs import (
    ROTATED,
    SCHEMES,
    SEARCHED,
    SENSITIVE,
    SMOOTHED,
    Change,
    Outcome,
    Study,
    copy_project,
    dry_runs,
    setting,
)

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study and for all dry runs

Scenario = Callable[[Study, Path], Study]

AFTER_PREDICTION = {"plot_batches", "plot_cache", "plot_intensity"}
AFTER_EVALUATION = {
    "compare_bytes",
    "summarize_perplexity",
    "plot_perplexity",
    "summarize_schemes",
    "plot_pareto",
    "summarize_runs",
    "report",
}
EVALUATED = {"evaluate_reference tiny/fp", *(f"evaluate tiny/{scheme}" for scheme in SCHEMES if scheme != "fp")}
SENSITIVITY = {f"measure_sensitivity tiny/{SENSITIVE}", f"plot_sensitivity tiny/{SENSITIVE}"}
PREDICTED = {"predict_capacity"} | AFTER_PREDICTION
AFTER_SENSITIVITY = {"summarize_runs", "report"}
ALPHAS = {f"plot_alphas tiny/{SEARCHED}"}


def smoothed(scheme: str) -> set[str]:
    """What reruns when a scheme is smoothed anew."""
    return {f"smooth tiny/{scheme}", f"plot_smoothing tiny/{scheme}"} | (ALPHAS if scheme == SEARCHED else set())


def evaluated(*schemes: str) -> set[str]:
    """What reruns when schemes are evaluated anew."""
    return {f"evaluate tiny/{scheme}" for scheme in schemes} | AFTER_EVALUATION


ALL_SMOOTHED = {job for scheme in SMOOTHED for job in smoothed(scheme)}
CALIBRATION_FIGURES = {
    "plot_distributions tiny",
    "plot_surfaces tiny/activation",
    "plot_surfaces tiny/weight",
}
AFTER_CALIBRATION = {"summarize_ranges"} | CALIBRATION_FIGURES | ALL_SMOOTHED | evaluated(*SMOOTHED)
CACHE_FIGURES = {f"plot_cache_{figure} tiny" for figure in ("accuracy", "bytes", "bits")}
TRACED = {"trace_caches tiny", "plot_cache_bits tiny"}  # from a prompt of its own
CACHES = {"compare_caches tiny", "trace_caches tiny", "summarize_kv_cache"} | CACHE_FIGURES
GENERATION_FIGURES = {f"plot_{figure} tiny" for figure in ("generation", "insertions", "diversity")}
WRITTEN = {"trace_generation tiny", "summarize_generation", "plot_generation tiny", "plot_insertions tiny"}
AFTER_SAMPLES = {"measure_diversity tiny", "summarize_diversity", "plot_diversity tiny"}
SAMPLED = {"sample_generations tiny"} | AFTER_SAMPLES
GENERATION = WRITTEN | SAMPLED
ATTENTION_INPUTS = ("evaluation-text", "repeated", "random")
RAW_ATTENTION_FIGURES = {"plot_heads tiny", *(f"plot_maps tiny/{text}" for text in ATTENTION_INPUTS)}
SINK_FIGURES = {f"plot_{figure} tiny" for figure in ("sinks", "first_tokens", "residuals", "attention_schemes")}
ATTENTION_FIGURES = RAW_ATTENTION_FIGURES | SINK_FIGURES
AFTER_COMPARED = {"summarize_attention"} | SINK_FIGURES
COMPARED = {"compare_attention tiny"} | AFTER_COMPARED
ATTENTION = {"capture_attention tiny", "compare_attention tiny"} | AFTER_COMPARED | RAW_ATTENTION_FIGURES
AFTER_EVICTION = {"summarize_eviction", "plot_eviction tiny"}
EVICTION = {"evict_sinks tiny"} | AFTER_EVICTION
PROFILE_FIGURES = {
    *(f"plot_{figure} {model}" for figure in ("latency", "memory") for model in ("tiny", "shape")),
    "plot_cache_speed tiny",
    "plot_kernels tiny",
    "plot_roofline",
}
BASELINE_FIGURE = {"plot_baseline tiny"}
AFTER_PROFILING = {"summarize_profiling"} | PROFILE_FIGURES
PROFILED_TINY = {f"profile_{part} tiny" for part in ("latency", "memory", "cache", "kernels", "baseline")}
PROFILED_TINY |= BASELINE_FIGURE
PROFILED_SHAPE = {f"profile_{part} shape" for part in ("latency", "memory")}
ROUNDS_AND_PROFILES = {f"profile_{part} {model}" for part in ("latency", "memory") for model in ("tiny", "shape")}
ALL_FIGURES = (
    CALIBRATION_FIGURES
    | ALPHAS
    | {f"plot_smoothing tiny/{scheme}" for scheme in SMOOTHED}
    | {f"plot_sensitivity tiny/{SENSITIVE}", "plot_perplexity", "plot_pareto", "plot_digits", "plot_decoder"}
    | AFTER_PREDICTION
    | PROFILE_FIGURES
    | BASELINE_FIGURE
    | GENERATION_FIGURES
    | ATTENTION_FIGURES
    | {"plot_eviction tiny"}
    | CACHE_FIGURES
    | {"plot_rules"}
)
AFTER_DIGITS = {"summarize_fundamentals", "plot_digits", "plot_decoder", "summarize_runs", "report"}
FUNDAMENTALS = {"fetch_images optdigits", "quantize_digits", "check_decoder", "time_decoder"} | AFTER_DIGITS
FOR_CLAIMS = {  # rules whose tables claims are asked of
    *("smooth", "rotate", "evaluate", "evaluate_reference", "summarize_perplexity", "summarize_schemes"),
    *("summarize_ranges", "predict_capacity", "compare_bytes", "measure_machine"),
    *(f"profile_{part}" for part in ("latency", "memory", "cache", "kernels", "baseline")),
    *("summarize_profiling", "compare_caches", "trace_caches", "summarize_kv_cache"),
    *("trace_generation", "sample_generations", "measure_diversity", "summarize_generation", "summarize_diversity"),
    *("capture_attention", "summarize_attention", "summarize_eviction"),
    *("check_decoder", "time_decoder", "summarize_fundamentals"),
}
VERDICTS = {"judge_claims", "report"}
ONE_MODEL = (
    {"fetch_model tiny", "calibrate tiny", "rotate tiny/0"}
    | EVALUATED
    | SENSITIVITY
    | ALL_SMOOTHED
    | CALIBRATION_FIGURES
    | PROFILED_TINY
    | GENERATION
    | ATTENTION
    | EVICTION
    | CACHES
)


def configured(change: Change) -> Scenario:
    """Another configuration in the finished folder."""
    return lambda study, _: study.changed(change)


def checked_out(change: Callable[[Path], None]) -> Scenario:
    """Another checkout of the project, in another place and newer than all results, with some change."""

    def scenario(study: Study, folder: Path) -> Study:
        project = folder / "project"
        copy_project(study.place.project, project)
        change(project)
        newest = max(path.stat().st_mtime for path in study.results.rglob("*"))
        assert (project / "workflow" / "scripts" / "evaluate.py").stat().st_mtime > newest
        return study.with_project(project)

    return scenario


def in_a_copy(change: Callable[[Path], None], configuration: Change = lambda _: None) -> Scenario:
    """Changed files in a copy of the finished folder."""

    def scenario(study: Study, folder: Path) -> Study:
        own = study.copy(folder / "study")
        change(own.folder)
        return own.changed(configuration)

    return scenario


def edited(path: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    """A change of one text file, which must change it."""

    def apply(folder: Path) -> None:
        file = folder / path
        before = file.read_text(encoding="utf-8")
        after = edit(before)
        assert after != before, path
        file.write_text(after, encoding="utf-8")

    return apply


def other_result(text: str) -> str:
    """The first function that returns something returns something else."""
    return re.sub(r"(\n +return) ", r"\1 None or ", text, count=1)


def other_words(project: Path) -> None:
    """Comments, docstrings and captions change, in the library, in a script and in a rule file; no code does."""
    for path in ("inferometer/models.py", "inferometer/tables.py", "workflow/scripts/evaluate.py"):
        edited(path, lambda text: re.sub(r'\A"""', '"""In other words: ', text) + "\n# a comment\n")(project)
    edited("rules/evaluation.smk", lambda text: f"# a comment\n{text}")(project)
    edited("report/captions/ranges.rst", lambda text: f"{text}\nMore words.\n")(project)


def add_model(config: dict[str, Any]) -> None:
    """A second model in the study."""
    config["models"]["second"] = {"source": "local", "path": "models/second"}
    config["study"]["models"].append("second")


def touch_all(folder: Path) -> None:
    """All files of models and texts get another time of modification and keep their content."""
    later = time.time() + 60
    for path in (*(folder / "texts").iterdir(), *(folder / "models" / "tiny").iterdir()):
        os.utime(path, (later, later))


def keep_only_the_page(folder: Path) -> None:
    """All results but the page are lost."""
    page = folder / "results" / "report.html"
    kept = page.rename(folder / page.name)
    shutil.rmtree(page.parent)
    page.parent.mkdir()
    kept.rename(page)


def void(_: object) -> None:
    """Take a value and give none back."""


SCENARIOS: Mapping[str, tuple[Scenario, set[str]]] = {
    "nothing": (configured(lambda _: None), set()),
    # the configuration
    "the dots per inch of figures": (configured(setting(120, "figures", "dpi")), ALL_FIGURES | {"report"}),
    "the title": (configured(setting("Another title", "study", "title")), {"report"}),
    "a licence text": (configured(setting("CC-BY-4.0", "models", "tiny", "licence")), {"report"}),
    "the bits of one scheme": (
        configured(setting({"bits": 3, "granularity": "per_channel"}, "schemes", "w4a4", "weights")),
        SENSITIVITY | evaluated("w4a4") | COMPARED,
    ),
    "the bits of a smoothed scheme": (
        configured(setting(7, "schemes", "w8a8-smooth", "weights", "bits")),
        evaluated("w8a8-smooth"),
    ),
    "the bits of a scheme that searches its strength": (
        configured(setting(7, "schemes", SEARCHED, "weights", "bits")),
        smoothed(SEARCHED) | evaluated(SEARCHED),
    ),
    "the strength of smoothing": (
        configured(setting(0.7, "schemes", "w8a8-smooth", "smoothing", "alpha")),
        smoothed("w8a8-smooth") | evaluated("w8a8-smooth"),
    ),
    "the seed of a rotation": (
        configured(setting(3, "schemes", ROTATED, "rotation", "seed")),
        {"rotate tiny/3"} | evaluated(ROTATED),
    ),
    "the layers that a scheme keeps in float": (
        configured(setting(["*.down_proj"], "schemes", "w8a8-integer", "keep")),
        evaluated("w8a8-integer") | {"profile_latency tiny"} | AFTER_PROFILING,
    ),
    "the windows that rounding is calibrated on": (
        configured(setting(2, "calibration", "rounding_windows")),
        evaluated(ROTATED),
    ),
    "the length of windows of the calibration": (
        configured(setting(16, "calibration", "window_tokens")),
        {"calibrate tiny", "rotate tiny/0"} | AFTER_CALIBRATION | evaluated(ROTATED),
    ),
    "the number of questions": (
        configured(setting(3, "evaluation", "choices", "max_items")),
        EVALUATED | AFTER_EVALUATION,
    ),
    "the window that single layers are rounded on": (
        configured(setting(8, "evaluation", "sensitivity", "window_tokens")),
        SENSITIVITY | AFTER_SENSITIVITY,
    ),
    "another scheme for single layers": (
        configured(setting(["w8a8"], "evaluation", "sensitivity", "schemes")),
        {job.replace("w4a4", "w8a8") for job in SENSITIVITY} | AFTER_SENSITIVITY,
    ),
    "the windows of the evaluation": (
        configured(setting(16, "evaluation", "window_tokens")),
        EVALUATED | AFTER_EVALUATION,
    ),
    "the number of windows of the calibration": (
        configured(setting(3, "calibration", "max_windows")),
        {"calibrate tiny"} | AFTER_CALIBRATION,
    ),
    "the contexts of predictions": (
        configured(setting([2048], "capacity", "context_tokens")),
        PREDICTED | {"report"},
    ),
    "the GPU that figures show": (
        configured(setting(["l4", "t4"], "capacity", "gpus")),
        PREDICTED | {"report"},
    ),
    "a scheme less": (
        configured(setting([name for name in SCHEMES if name != "nf4-bnb"], "study", "schemes")),
        AFTER_EVALUATION,
    ),
    "a scheme more": (
        configured(setting([*SCHEMES, "w4a4-smooth"], "study", "schemes")),
        smoothed("w4a4-smooth") | evaluated("w4a4-smooth"),
    ),
    "the dtype of a model": (
        configured(setting("bfloat16", "models", "tiny", "dtype")),
        {"calibrate tiny"}
        | EVALUATED
        | SENSITIVITY
        | AFTER_CALIBRATION
        | (PROFILED_TINY - {"profile_latency tiny", "profile_kernels tiny"})
        | AFTER_PROFILING
        | GENERATION
        | ATTENTION
        | EVICTION
        | CACHES,
    ),
    "the lengths of prompts that are timed": (
        configured(setting([2, 4, 8], "profiling", "latency", "prompt_tokens")),
        {"profile_latency tiny", "summarize_runs", "report"} | AFTER_PROFILING,
    ),
    "the lengths of prompts of shapes": (
        configured(setting([4], "profiling", "architectures", "prompt_tokens")),
        {"profile_latency shape", "summarize_runs", "report"} | AFTER_PROFILING,
    ),
    "a prompt of the baseline": (
        configured(setting("word1", "profiling", "baseline", "prompts", "code")),
        {"profile_baseline tiny", "summarize_runs", "report"} | BASELINE_FIGURE,
    ),
    "the bits of a cache policy": (
        configured(setting(8, "kv_cache", "policies", "static-4", "bits")),
        {"compare_caches tiny", "summarize_kv_cache", "plot_cache_accuracy tiny", "plot_cache_bytes tiny"}
        | {"summarize_runs", "report"}
        | COMPARED,
    ),
    "the text that is written under cache policies": (
        configured(setting(7, "kv_cache", "trace", "new_tokens")),
        {"trace_caches tiny", "plot_cache_bits tiny", "report"},
    ),
    "the words that do not belong": (
        configured(setting(["cloud"], "generation", "insertions", "words", "common")),
        WRITTEN | {"summarize_runs", "report"},
    ),
    "the temperatures that are sampled": (
        configured(setting([0, 0.5], "generation", "sampling", "temperatures")),
        SAMPLED | {"summarize_runs", "report"},
    ),
    "a prompt that is only sampled": (
        configured(setting("word1", "generation", "sampling", "prompts", "fact")),
        SAMPLED | {"summarize_runs", "report"},
    ),
    "a prompt that is traced and sampled": (
        configured(setting("word1", "generation", "prompts", "story")),
        GENERATION | {"summarize_runs", "report"},
    ),
    "the texts whose attention is looked at": (
        configured(setting(3, "attention", "inputs", "lengths", "short", "texts")),
        ATTENTION - {"compare_attention tiny"} | {"summarize_runs", "report"},
    ),
    "the steps in which attention under rounding is read": (
        configured(setting(4, "attention", "rounding", "step_tokens")),
        {"compare_attention tiny", "summarize_runs", "report"} | AFTER_COMPARED,
    ),
    "the sinks that are kept": (
        configured(setting([1], "attention", "eviction", "sink_tokens")),
        EVICTION | {"summarize_runs", "report"},
    ),
    "the seeds of the digit classifier": (
        configured(setting([1], "fundamentals", "digits", "seeds")),
        {"quantize_digits"} | AFTER_DIGITS,
    ),
    "the lengths that the decoder writes": (
        configured(setting([3], "fundamentals", "decoder", "tokens")),
        {"time_decoder"} | AFTER_DIGITS,
    ),
    "a second model": (
        in_a_copy(lambda folder: void(tiny_checkpoint(folder / "models" / "second", seed=1)), add_model),
        {job.replace("tiny", "second") for job in ONE_MODEL}
        | AFTER_EVALUATION
        | PREDICTED
        | {"summarize_ranges"}
        | AFTER_PROFILING
        | {job.replace("tiny", "second") for job in PROFILE_FIGURES}
        | {"plot_insertions tiny", "plot_diversity tiny", "plot_cache_accuracy tiny", "plot_cache_bytes tiny"}
        | {f"plot_{figure} tiny" for figure in ("sinks", "first_tokens", "residuals", "attention_schemes", "eviction")},
    ),
    "claims of one's own": (
        in_a_copy(
            lambda folder: void((folder / "mine.yaml").write_text("[]\n", encoding="utf-8")),
            setting(["mine.yaml"], "claims"),
        ),
        VERDICTS,
    ),
    # the code
    "only the place and age of the checkout": (checked_out(lambda _: None), set()),
    "comments, docstrings and captions": (checked_out(other_words), set()),
    "a function that only the evaluation uses": (
        checked_out(edited("inferometer/evaluation/perplexity.py", other_result)),
        EVALUATED | AFTER_EVALUATION,
    ),
    "a function that only figures of the calibration use": (
        checked_out(edited("inferometer/calibration/figures.py", other_result)),
        CALIBRATION_FIGURES | {"report"},
    ),
    "a function that only the proof of smoothing uses": (
        checked_out(edited("inferometer/smoothing/proof.py", other_result)),
        ALL_SMOOTHED | evaluated(*SMOOTHED),
    ),
    "a function that only the search of a strength uses": (
        checked_out(edited("inferometer/smoothing/search.py", other_result)),
        ALL_SMOOTHED | evaluated(*SMOOTHED),
    ),
    "a function that only the proof of a rotation uses": (
        checked_out(edited("inferometer/rotation/proof.py", other_result)),
        {"rotate tiny/0"} | evaluated(ROTATED),
    ),
    "a function that rotates models": (
        checked_out(edited("inferometer/rotation/fold.py", other_result)),
        {"rotate tiny/0"} | EVALUATED | AFTER_EVALUATION,
    ),
    "a function that rounds with compensation": (
        checked_out(edited("inferometer/quantization/gptq.py", other_result)),
        EVALUATED
        | SENSITIVITY
        | AFTER_EVALUATION
        | ROUNDS_AND_PROFILES
        | AFTER_PROFILING
        | (CACHES - TRACED)
        | COMPARED,
    ),
    "a function that says how far rounded values are off": (
        checked_out(edited("inferometer/quantization/noise.py", other_result)),
        {"rotate tiny/0"}
        | EVALUATED
        | SENSITIVITY
        | AFTER_EVALUATION
        | ROUNDS_AND_PROFILES
        | AFTER_PROFILING
        | (CACHES - TRACED)
        | COMPARED,
    ),
    "a function that only single layers use": (
        checked_out(edited("inferometer/evaluation/sensitivity.py", lambda text: f"{text}\n\nWINDOW = 1\n")),
        SENSITIVITY | AFTER_SENSITIVITY,
    ),
    "a function that only the summary of perplexities uses": (
        checked_out(edited("inferometer/evaluation/summary.py", other_result)),
        AFTER_EVALUATION - {"summarize_runs", "compare_bytes"},
    ),
    "a function that counts what fits": (
        checked_out(edited("inferometer/capacity/fit.py", other_result)),
        PREDICTED | {"compare_bytes", "report"},
    ),
    "a GPU's data sheet": (
        checked_out(edited("inferometer/capacity/gpus.yaml", lambda text: text.replace("1555", "1556"))),
        PREDICTED | {"report"},
    ),
    "a function that measures the machine": (
        checked_out(edited("inferometer/capacity/machine.py", other_result)),
        {"measure_machine", "plot_intensity", "report"} | AFTER_PROFILING,
    ),
    "a function that only figures of the capacity use": (
        checked_out(edited("inferometer/capacity/figures.py", other_result)),
        AFTER_PREDICTION | {"report"},
    ),
    "a function that only the decoder's checks use": (
        checked_out(edited("inferometer/fundamentals/checks.py", other_result)),
        {"check_decoder", "report"},
    ),
    "a function that times": (
        checked_out(edited("inferometer/timing.py", other_result)),
        {"time_decoder", "measure_machine", "plot_intensity"}
        | AFTER_DIGITS
        | PROFILED_TINY
        | PROFILED_SHAPE
        | AFTER_PROFILING
        | CACHES - TRACED,
    ),
    "a function that fits lines and knees": (
        checked_out(edited("inferometer/profiling/fits.py", lambda text: f"{text}\n\nROWS = 1\n")),
        AFTER_PROFILING | {"report"},
    ),
    "a function that only figures of the profiling use": (
        checked_out(edited("inferometer/profiling/figures.py", other_result)),
        (PROFILE_FIGURES | BASELINE_FIGURE) - {"plot_kernels tiny"} | {"report"},
    ),
    "a function that only summaries of the fundamentals use": (
        checked_out(edited("inferometer/fundamentals/summary.py", lambda text: f"{text}\n\nROWS = 1\n")),
        AFTER_DIGITS - {"summarize_runs"},
    ),
    "a function that finds loops": (
        checked_out(edited("inferometer/generation/loops.py", other_result)),
        GENERATION | {"summarize_runs", "report"},
    ),
    "a function that only summaries of the generation use": (
        checked_out(edited("inferometer/generation/summary.py", other_result)),
        {"summarize_generation", "plot_insertions tiny", "report"},
    ),
    "a function that compares samples": (
        checked_out(edited("inferometer/generation/diversity.py", other_result)),
        AFTER_SAMPLES | {"report"},
    ),
    "a function that only figures of the generation use": (
        checked_out(edited("inferometer/generation/figures.py", other_result)),
        GENERATION_FIGURES | {"report"},
    ),
    "a function that captures attention": (
        checked_out(edited("inferometer/attention/capture.py", other_result)),
        ATTENTION | {"summarize_runs", "report"},
    ),
    "a function that evicts tokens": (
        checked_out(edited("inferometer/attention/eviction.py", other_result)),
        EVICTION | {"summarize_runs", "report"},
    ),
    "a function that only the summary of evicted tokens uses": (
        checked_out(edited("inferometer/attention/eviction_summary.py", other_result)),
        AFTER_EVICTION | {"report"},
    ),
    "a function that finds phases": (
        checked_out(edited("inferometer/attention/phases.py", other_result)),
        AFTER_COMPARED | {"report"},
    ),
    "a function that only draws the rule graph": (
        checked_out(edited("inferometer/provenance/figures.py", other_result)),
        {"plot_rules", "report"},
    ),
    "a function that only compares runs": (checked_out(edited("inferometer/compare/paired.py", other_result)), set()),
    "the ledger of claims": (
        checked_out(edited("report/claims.yaml", lambda text: text.replace("at_least: 0.9}", "at_least: 0.8}", 1))),
        VERDICTS,
    ),
    "a function that only verdicts use": (
        checked_out(edited("inferometer/claims/judge.py", other_result)),
        VERDICTS,
    ),
    "the script of one rule": (
        checked_out(edited("workflow/scripts/plot_perplexity.py", lambda text: f"{text}\nprint('drawn')\n")),
        {"plot_perplexity", "report"},
    ),
    "the style sheet of the page": (
        checked_out(edited("report/style.css", lambda text: f"{text}\np {{ color: black }}\n")),
        {"report"},
    ),
    # the files
    "the content of a text": (
        in_a_copy(edited("texts/evaluation.jsonl", lambda text: text.replace("word", "words", 1))),
        {"fetch_corpus evaluation-text"}
        | EVALUATED
        | SENSITIVITY
        | AFTER_EVALUATION
        | WRITTEN
        | ATTENTION
        | EVICTION
        | CACHES - TRACED,
    ),
    "the content of questions": (
        in_a_copy(edited("texts/questions.jsonl", lambda text: text.replace("word", "words", 1))),
        {"fetch_questions quiz"} | EVALUATED | AFTER_EVALUATION | (CACHES - TRACED),
    ),
    "the weights of a model": (
        in_a_copy(lambda folder: void(tiny_checkpoint(folder / "models" / "tiny", seed=5))),
        ONE_MODEL | AFTER_CALIBRATION | PREDICTED | AFTER_PROFILING,
    ),
    "the age of texts and models": (in_a_copy(touch_all), set()),
    "the loss of one table between others": (
        in_a_copy(lambda folder: (folder / "results/tiny/evaluation/w4a4/perplexity.parquet").unlink()),
        evaluated("w4a4"),
    ),
    "the loss of what the float model left": (
        in_a_copy(lambda folder: (folder / "results/tiny/evaluation/fp/hidden.safetensors").unlink()),
        EVALUATED | AFTER_EVALUATION,
    ),
    "the loss of all results but the page": (
        in_a_copy(keep_only_the_page),
        ONE_MODEL
        | AFTER_EVALUATION
        | PREDICTED
        | FUNDAMENTALS
        | PROFILED_SHAPE
        | AFTER_PROFILING
        | {
            "measure_machine",
            "list_rules",
            "plot_rules",
            "summarize_ranges",
            "fetch_model shape",
            *(f"fetch_corpus {text}-text" for text in ("calibration", "evaluation")),
            "fetch_questions quiz",
        },
    ),
    "the loss of all that snakemake wrote down": (
        in_a_copy(lambda folder: shutil.rmtree(folder / ".snakemake")),
        set(),
    ),
}


def with_verdicts(expected: set[str]) -> set[str]:
    """The jobs with `judge_claims`, which reads nearly every table."""
    return expected | ({"judge_claims"} if {job.split()[0] for job in expected} & FOR_CLAIMS else set())


def planned(
    scenarios: Mapping[str, tuple[Scenario, set[str]]], study: Study, folders: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """A dry run of every scenario, each on a study that is made of this one."""
    studies = [scenario(study, folders.mktemp("stale")) for scenario, _ in scenarios.values()]
    return dict(zip(scenarios, dry_runs(studies), strict=True))


@pytest.fixture(scope="module")
def outcomes(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """A dry run of every scenario."""
    return planned(SCENARIOS, study, tmp_path_factory)


@pytest.mark.parametrize("what", SCENARIOS)
def test_a_change_reruns_exactly_the_jobs_that_it_concerns(outcomes: dict[str, Outcome], what: str) -> None:
    _, expected = SCENARIOS[what]
    assert outcomes[what].jobs == with_verdicts(expected), outcomes[what].output
