"""Jobs by a submit command: the profile's own, answered by stand-ins for a scheduler's commands."""

import os
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cluster.conftest import Local, assert_same_tables, ended, profiled, start, tables
from tests.cluster.slurm import kill_all_with

PATIENCE_S = 120
TARGET = "results/tiny/calibration/run.parquet"
# Each job is a shell in the background, its id that of the process which submitted it, its end a file with its status.
COMMANDS = {
    "qsub": """\
for script; do :; done
sh -c 'JOB_ID=$3 sh "$1"; echo $? > "$2"' job "$script" {folder}/$$.status $$ >/dev/null 2>&1 &
echo "$$ $*" >> {folder}/submitted
echo $$
""",
    "qstat": 'test ! -e {folder}/"$2".status',
    "qacct": 'echo "exit_status  $(cat {folder}/"$2".status)"',
    "qdel": "exit 1",
}

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        find_spec("snakemake_executor_plugin_cluster_generic") is None,
        reason="Snakemake's generic executor plugin is not installed (pip install inferometer[generic])",
    ),
]


def _submitted(notes: Path) -> list[str]:
    """What was submitted and asks for a GPU, as the job's id and the command's arguments."""
    lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
    return [line for line in lines if "-l gpu=1" in line]


@pytest.fixture
def scheduler(tmp_path: Path) -> Path:
    """A folder in which the stand-ins lie, and in which they write down what is submitted."""
    for name, body in COMMANDS.items():
        command = tmp_path / "scheduler" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text("#!/bin/sh\n" + body.format(folder=command.parent))
        command.chmod(0o755)
    return tmp_path / "scheduler"


def test_a_submit_command_runs_jobs_and_a_killed_one_goes_again_with_more_memory(
    local: Local, scheduler: Path, tmp_path: Path
) -> None:
    study, log, notes = local.again(tmp_path / "study"), tmp_path / "log", scheduler / "submitted"
    path = os.pathsep.join([str(scheduler), os.environ["PATH"]])
    options = [
        *("--cluster-generic-status-cmd", f"sh {study.place.project}/profiles/generic/status.sh"),
        *("--cores", "2", "--latency-wait", "10", "--seconds-between-status-checks", "1"),
    ]
    process = start(study, profiled(study, "generic", *options, targets=[TARGET]), {"PATH": path}, log)
    end = time.monotonic() + PATIENCE_S
    while not (first := _submitted(notes)):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < end, "no such job came"
        time.sleep(0.1)
    assert kill_all_with(f"JOB_ID={first[0].split()[0]}") > 0
    outcome = ended(process, log)
    assert outcome.status == 0, outcome.output
    asked = [line.split(" -l ", 1)[1].rsplit(maxsplit=1)[0] for line in _submitted(notes)]
    assert asked == [f"h_vmem={memory}M -l h_rt=00:120:00 -l gpu=1" for memory in (4000, 8000)]
    assert_same_tables(study.results, local.study.results, tables(study.results))
    assert (study.results / "tiny/calibration/weights.parquet").exists()


def test_a_dry_run_submits_nothing(local: Local, tmp_path: Path) -> None:
    study, log = local.again(tmp_path / "study"), tmp_path / "log"
    outcome = ended(start(study, profiled(study, "generic", "--dry-run", targets=["all"]), {}, log), log)
    assert outcome.status == 0, outcome.output
    assert not study.results.exists()
    assert "rule report:" in outcome.output
