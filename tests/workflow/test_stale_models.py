"""What befalls one of several models reruns its own jobs, and of the others only what reads summaries."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_checkpoint
from tests.workflow.snakemake_runs import ROTATED, Outcome, Study, setting
from tests.workflow.stale_table import PAGE, table
from tests.workflow.test_stale import (
    AFTER_CALIBRATION,
    AFTER_COMPARED,
    AFTER_PROFILING,
    ATTENTION,
    CACHE_FIGURES,
    EVICTION,
    PREDICTED,
    PROFILE_FIGURES,
    PROFILED_SHAPE,
    SAMPLED,
    SCENARIOS,
    SINK_FIGURES,
    WRITTEN,
    Scenario,
    add_model,
    configured,
    evaluated,
    in_a_copy,
    planned,
    smoothed,
    void,
    with_verdicts,
)

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study and for all dry runs

READ_SUMMARIES = (  # figures of one model out of tables of all of them
    PROFILE_FIGURES
    | SINK_FIGURES
    | CACHE_FIGURES - {"plot_cache_bits tiny"}
    | {"plot_insertions tiny", "plot_diversity tiny", "plot_eviction tiny"}
)
AFTER = {"summarize_runs", "report"}


def of_second(jobs: set[str]) -> set[str]:
    """What reruns where jobs are due to the second model: they, and of the first the figures that read summaries."""
    return {job.replace("tiny", "second") for job in jobs} | (jobs & READ_SUMMARIES)


def of_both(jobs: set[str]) -> set[str]:
    """What reruns where jobs are due to what both models share."""
    return jobs | of_second(jobs)


def of_first_alone(what: str) -> set[str]:
    """What a change reruns in the study of one model."""
    return SCENARIOS[what][1]


def lost(table: str) -> Scenario:
    """One file of the second model is lost."""
    return in_a_copy(lambda folder: (folder / "results" / "second" / table).unlink())


def another_model(folder: Path) -> None:
    """The second model gets other weights."""
    void(tiny_checkpoint(folder / "models" / "second", seed=5))


def keep_float(config: dict[str, Any]) -> None:
    """A scheme that both models are under keeps a layer in float."""
    setting(["*.down_proj"], "schemes", "w4a4", "keep")(config)


OF_TWO = {
    "nothing": (configured(lambda _: None), set()),
    "a model's dtype": (
        configured(setting("bfloat16", "models", "second", "dtype")),
        of_second(of_first_alone("the dtype of a model")),
    ),
    "a model's weights": (in_a_copy(another_model), of_second(of_first_alone("the weights of a model"))),
    "a model's licence": (configured(setting("MIT", "models", "second", "licence")), {"report"}),
    "the seed of a shape": (
        configured(setting(8, "models", "shape", "seed")),
        {"fetch_model shape"} | PROFILED_SHAPE | of_both(AFTER_PROFILING) | PREDICTED | AFTER,
    ),
    "one scheme, of both models": (
        configured(keep_float),
        of_both(of_first_alone("the bits of one scheme")),
    ),
    "one scheme of one model": (lost("evaluation/w4a4/layers.parquet"), of_second(evaluated("w4a4"))),
    "calibration: a table of one model": (
        lost("calibration/activations.parquet"),
        of_second({"calibrate tiny"} | AFTER_CALIBRATION),
    ),
    "smoothing: a table of one scheme of one model": (
        lost("smoothing/w8a8-smooth/scales.parquet"),
        of_second(smoothed("w8a8-smooth") | evaluated("w8a8-smooth")),
    ),
    "rotation: a table of one model": (
        lost("rotation/0/paths.parquet"),
        of_second({"rotate tiny/0"} | evaluated(ROTATED)),
    ),
    "profiling: a table of one model": (
        lost("profiling/kernels.parquet"),
        of_second({"profile_kernels tiny"} | AFTER_PROFILING | {"report"}),
    ),
    "kv_cache: a table of one policy of one model": (
        lost("kv_cache/static-4/choices.parquet"),
        of_second({"compare_caches tiny", "summarize_kv_cache"} | CACHE_FIGURES - {"plot_cache_bits tiny"} | AFTER),
    ),
    "kv_cache: a trace of one model": (
        lost("kv_cache/entropy/trace.parquet"),
        of_second({"trace_caches tiny", "plot_cache_bits tiny", "report"}),
    ),
    "generation: a table of one model": (lost("generation/features.parquet"), of_second(WRITTEN | AFTER)),
    "generation: the samples of one model": (lost("generation/samples.parquet"), of_second(SAMPLED | AFTER)),
    "attention: a table of one model": (
        lost("attention/heads.parquet"),
        of_second(ATTENTION - {"compare_attention tiny"} | AFTER),
    ),
    "attention: what rounding does to one model": (
        lost("attention/rounded.parquet"),
        of_second({"compare_attention tiny"} | AFTER_COMPARED | AFTER),
    ),
    "attention: evicted tokens of one model": (lost("attention/eviction.parquet"), of_second(EVICTION | AFTER)),
}


@pytest.fixture(scope="module")
def two_models(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The finished study with a twin of its model, of which snakemake wrote down what it writes of a job that ran.

    The twin's results are copies: a dry run asks for files, dates and records, and never what a table says.
    """
    both = study.copy(tmp_path_factory.mktemp("two") / "study").changed(add_model)
    shutil.copytree(both.folder / "models" / "tiny", both.folder / "models" / "second")
    shutil.copytree(both.results / "tiny", both.results / "second", symlinks=True)
    touched = both.snakemake("--touch", "--forceall")
    assert touched.status == 0, touched.output
    return both


@pytest.fixture(scope="module")
def outcomes(two_models: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """A dry run of every scenario."""
    return planned(OF_TWO, two_models, tmp_path_factory)


@pytest.mark.parametrize("what", OF_TWO)
def test_what_befalls_one_of_two_models_reruns_exactly_its_cone(outcomes: dict[str, Outcome], what: str) -> None:
    _, expected = OF_TWO[what]
    assert outcomes[what].jobs == with_verdicts(expected), outcomes[what].output


def test_the_table_in_the_documentation_is_that_of_the_tests() -> None:
    assert PAGE.read_text(encoding="utf-8") == table(), "write it anew: python -m tests.workflow.stale_table"
