"""What machines and people do to a run: no network, no space left, killed jobs, interrupts, damaged results."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import Finished
from tests.workflow.processes import PATIENCE_S, no_mounts, running, wait_for
from tests.workflow.snakemake_runs import SCHEMES, Study

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study

SCORES = "results/tiny/evaluation/fp/perplexity.parquet"
SCORES_OF_A_SCHEME = "results/tiny/evaluation/w4a4/perplexity.parquet"
TEXTS = "results/sources/corpora/evaluation-text.parquet"
ON_A_SMALL_DISK = """
    mount -t tmpfs -o size="$1" tmpfs "$2" || exit 99
    folder="$2"; shift 2
    "$@"; status=$?
    find "$folder" -type f -printf "LEFT %p\\n"
    exit $status
"""


def test_a_run_from_local_files_never_reaches_for_the_network(finished: Finished) -> None:
    assert finished.outcome.status == 0
    assert not [name for name in finished.study.place.environment if name.startswith("HF_")]
    assert finished.connections == ""


@pytest.mark.parametrize(
    "call", ["socket.create_connection(('192.0.2.1', 80), 5)", "socket.getaddrinfo('example.org', 80)"]
)
def test_reaching_for_the_network_would_have_been_noted(study: Study, tmp_path: Path, call: str) -> None:
    notes = tmp_path / "connections.txt"
    environment = {**study.place.environment, "INFEROMETER_TEST_CONNECTIONS": str(notes)}
    done = subprocess.run(
        [sys.executable, "-c", f"import socket; {call}"], env=environment, capture_output=True, check=False
    )
    assert b"the test refuses a connection" in done.stderr
    assert notes.read_text(encoding="utf-8")


def test_a_full_disk_is_named_and_nothing_of_the_job_is_left(own_copy: Study) -> None:
    if reason := no_mounts():
        pytest.skip(reason)
    folder = own_copy.results / "tiny" / "evaluation"
    page = os.sysconf("SC_PAGE_SIZE")
    pages = [-(-(folder / "fp" / name).stat().st_size // page) for name in ("run.parquet", "perplexity.parquet")]
    room = (sum(pages) - 1) * page  # for the first table, and not for both
    wrapper = ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK, "sh", str(room), str(folder)]
    outcome = own_copy.snakemake(targets=[SCORES], wrapper=wrapper)
    assert outcome.status == 1, outcome.output
    assert f"cannot write {SCORES}: " in outcome.sentence
    assert "No space left on device; nothing was kept." in outcome.sentence
    assert "Error in rule evaluate_reference" in outcome.output
    assert "Traceback" not in outcome.output
    assert "LEFT" not in outcome.output


def assert_nothing_half_written(study: Study, target: str) -> None:
    """Neither the target nor any file of which only a part was written is there."""
    assert not (study.folder / target).exists()
    assert list(study.folder.rglob("*.partial")) == []


def test_a_killed_job_is_named_and_the_next_call_makes_only_what_is_missing(own_copy: Study, tmp_path: Path) -> None:
    whole = (own_copy.folder / SCORES).read_bytes()
    shutil.rmtree((own_copy.folder / SCORES).parent)
    log = own_copy.results / "logs" / "evaluate_reference" / "tiny" / "fp.log"
    log.unlink()
    output = tmp_path / "output.txt"
    with running(own_copy, "evaluate", SCORES, output) as (snakemake, job):
        wait_for(lambda: log.exists() or None)  # imports are done, the work begins
        job.kill()
        status = snakemake.wait(PATIENCE_S)
    said = output.read_text(encoding="utf-8")
    assert status == 1, said
    assert "Error in rule evaluate_reference" in said
    assert "SIGKILL" in said
    assert "results/logs/evaluate_reference/tiny/fp.log" in said
    assert_nothing_half_written(own_copy, SCORES)
    schemes = {f"evaluate tiny/{scheme}" for scheme in SCHEMES if scheme != "fp"}  # all are compared with float
    after = {f"summarize_{table}" for table in ("perplexity", "schemes", "runs")}
    figures = {"plot_perplexity", "plot_pareto", "compare_bytes", "judge_claims", "report"}
    assert own_copy.would_run() == {"evaluate_reference tiny/fp"} | schemes | after | figures
    again = own_copy.snakemake(targets=[SCORES])
    assert again.jobs == {"evaluate_reference tiny/fp"}
    assert (own_copy.folder / SCORES).read_bytes() == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_ends_its_jobs_and_the_next_call_goes_on(
    own_copy: Study, tmp_path: Path, number: signal.Signals
) -> None:
    whole = (own_copy.folder / TEXTS).read_bytes()
    (own_copy.folder / TEXTS).unlink()
    with running(own_copy, "fetch_corpus", TEXTS, tmp_path / "output.txt") as (snakemake, job):
        os.killpg(snakemake.pid, number)  # as a terminal or a scheduler does it
        assert snakemake.wait(PATIENCE_S) != 0
        wait_for(lambda: None if job.is_running() else True)
    assert_nothing_half_written(own_copy, TEXTS)
    again = own_copy.snakemake(targets=[TEXTS])
    assert again.jobs == {"fetch_corpus evaluation-text"}
    assert (own_copy.folder / TEXTS).read_bytes() == whole


def test_snakemake_asked_to_stop_finishes_its_running_job_and_keeps_the_result(own_copy: Study, tmp_path: Path) -> None:
    whole = (own_copy.folder / TEXTS).read_bytes()
    (own_copy.folder / TEXTS).unlink()
    with running(own_copy, "fetch_corpus", TEXTS, tmp_path / "output.txt") as (snakemake, _):
        snakemake.send_signal(signal.SIGTERM)
        assert snakemake.wait(PATIENCE_S) != 0
    assert (own_copy.folder / TEXTS).read_bytes() == whole
    assert own_copy.snakemake(targets=[TEXTS]).jobs == set()


def test_a_second_run_on_the_same_results_is_refused_and_does_not_disturb_the_first(
    own_copy: Study, tmp_path: Path
) -> None:
    whole = (own_copy.folder / TEXTS).read_bytes()
    (own_copy.folder / TEXTS).unlink()
    with running(own_copy, "fetch_corpus", TEXTS, tmp_path / "output.txt") as (snakemake, job):
        job.suspend()
        second = own_copy.snakemake(targets=[TEXTS])
        assert second.status != 0
        assert "Directory cannot be locked. Please make sure that no other Snakemake process" in second.sentence
        assert "Traceback" not in second.output
        job.resume()
        assert snakemake.wait(PATIENCE_S) == 0
    assert (own_copy.folder / TEXTS).read_bytes() == whole
    assert own_copy.snakemake(targets=[TEXTS]).jobs == set()


def test_a_damaged_table_is_named_and_made_again_once_it_is_deleted(own_copy: Study) -> None:
    table = own_copy.folder / SCORES_OF_A_SCHEME
    table.write_bytes(table.read_bytes()[:-100])
    summary = "results/summary/perplexity.parquet"
    outcome = own_copy.snakemake(targets=[summary])
    assert outcome.status == 1
    assert f"cannot read the table {SCORES_OF_A_SCHEME}: " in outcome.sentence
    assert "delete it and run again." in outcome.sentence
    assert "Traceback" not in outcome.output
    assert_nothing_half_written(own_copy, summary)
    table.unlink()
    assert own_copy.would_run(summary) == {"evaluate tiny/w4a4", "summarize_perplexity"}
