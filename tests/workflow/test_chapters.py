"""Studies that leave chapters out: what is planned, what a real one of one chapter leaves, and what adding one runs."""

import dataclasses
from pathlib import Path

import pytest

from tests.workflow.snakemake_runs import Place, Study, dry_runs, new_study, setting

pytestmark = pytest.mark.timeout(1800)

ABOUT = {"summarize_runs", "judge_claims", "list_rules", "plot_rules", "report"}  # the study, whichever chapters it has
ALWAYS = ABOUT | {"fetch_model tiny", "fetch_model shape"}
CAPACITY = {"predict_capacity", "measure_machine", "plot_batches", "plot_cache", "plot_intensity"}
FUNDAMENTALS = {
    "fetch_images optdigits",
    "quantize_digits",
    "check_decoder",
    "time_decoder",
    "summarize_fundamentals",
    "plot_digits",
    "plot_decoder",
}
GENERATION = {
    "fetch_corpus evaluation-text",
    "trace_generation tiny",
    "sample_generations tiny",
    "measure_diversity tiny",
    "summarize_generation",
    "summarize_diversity",
    *(f"plot_{figure} tiny" for figure in ("generation", "insertions", "diversity")),
}
PROFILING = {
    "measure_machine",
    *(f"{job} {model}" for job in ("profile_latency", "profile_memory") for model in ("tiny", "shape")),
    *(f"{job} {model}" for job in ("plot_latency", "plot_memory") for model in ("tiny", "shape")),
    *(f"profile_{part} tiny" for part in ("cache", "kernels", "baseline")),
    *(f"plot_{figure} tiny" for figure in ("cache_speed", "kernels", "baseline")),
    "summarize_profiling",
    "plot_roofline",
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of which nothing has run, and which asks for its capacity alone."""
    folder = tmp_path_factory.mktemp("chapters")
    study = new_study(folder / "study", Place.make(folder))
    return study.changed(setting(["capacity"], "study", "chapters"))


def test_only_the_jobs_of_chapters_that_are_named_are_planned(fresh: Study) -> None:
    plans = {
        ("capacity",): CAPACITY,
        ("fundamentals",): FUNDAMENTALS,
        ("generation",): GENERATION,
        ("profiling",): PROFILING,
        ("capacity", "profiling"): CAPACITY | PROFILING,
    }
    outcomes = dry_runs(fresh.changed(setting(list(names), "study", "chapters")) for names in plans)
    for outcome, jobs in zip(outcomes, plans.values(), strict=True):
        assert outcome.jobs == jobs | ALWAYS


def test_shapes_alone_are_planned_where_no_chapter_needs_weights(fresh: Study) -> None:
    shapes = fresh.changed(setting(["shape"], "study", "models"))
    assert shapes.would_run() == (CAPACITY | ALWAYS) - {"fetch_model tiny"}


def test_a_chapter_that_is_left_out_runs_when_it_is_asked_for(fresh: Study) -> None:
    assert fresh.would_run("generation") == GENERATION | {"fetch_model tiny", "generation"}


@pytest.mark.parametrize(
    ("chapters", "sentence"),
    [
        (["capacity", "poetry"], "`study.chapters[1]` is 'poetry'; it must be one of evaluation, capacity, profiling"),
        ([], "`study.chapters` is a list of 0, which is too short; list at least 1."),
    ],
)
def test_chapters_that_are_none_are_refused(fresh: Study, chapters: list[str], sentence: str) -> None:
    outcome = fresh.changed(setting(chapters, "study", "chapters")).snakemake("--dry-run")
    assert outcome.status != 0
    assert sentence in outcome.sentence
    assert "Traceback" not in outcome.output


def test_a_study_of_one_chapter_ends_with_a_page_and_another_can_be_added(fresh: Study, tmp_path: Path) -> None:
    done = dataclasses.replace(fresh, folder=fresh.copy(tmp_path / "study").folder)
    outcome = done.snakemake()
    assert outcome.status == 0, outcome.output
    assert outcome.jobs == CAPACITY | ALWAYS
    page = (done.results / "report.html").read_text(encoding="utf-8")
    assert page.count("This study leaves the chapter out") == 10 + 6, "in ten sections, and of six chapters at the top"
    assert "<td>smollm2-135m</td>" in page
    assert not (done.results / "tiny" / "evaluation").exists()
    assert done.would_run() == set()
    added = done.changed(setting(["capacity", "fundamentals"], "study", "chapters"))
    assert added.would_run() == FUNDAMENTALS | ABOUT
