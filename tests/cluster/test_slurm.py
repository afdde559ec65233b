"""A study by a real Slurm: the tables of a local run, also where nodes are lost or jobs are killed on the way."""

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cluster.conftest import Local, assert_same_tables, ended, profiled, start, tables
from tests.cluster.slurm import Slurm, missing_programs, slurm
from tests.workflow.snakemake_runs import Study, setting

PATIENCE_S = 120
SCORES = "summarize_schemes"  # the rule behind which jobs of the most kinds stand
KILLS = 6
SEED = 20
LONGEST_PAUSE_S = 6.0
RETRIES = 2  # of the profile


def _why_not() -> str | None:
    if missing := missing_programs():
        return f"no Slurm here: {', '.join(missing)} not found (Debian packages slurm-wlm and munge)"
    if find_spec("snakemake_executor_plugin_slurm") is None:
        return "Snakemake's executor plugin for Slurm is not installed (pip install inferometer[slurm])"
    return None if os.geteuid() == 0 else "a Slurm of one's own needs root"


REASON = _why_not()
pytestmark = [pytest.mark.timeout(1800), pytest.mark.skipif(REASON is not None, reason=str(REASON))]


@dataclass(frozen=True)
class Clustered:
    """A study run by Slurm with the profile that users have, but for what a small cluster lacks or can do sooner."""

    study: Study
    slurm: Slurm
    log: Path

    def start(self, *targets: str) -> subprocess.Popen[bytes]:
        """Start Snakemake."""
        options = [
            *("--cores", "2", "--slurm-no-account", "--slurm-status-command", "squeue"),
            *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
            *("--latency-wait", "10"),
        ]
        command = profiled(self.study, "slurm", *options, targets=targets)
        return start(self.study, command, self.slurm.environment, self.log)


def _wait_for_jobs(cluster: Slurm, enough: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """The node of each running job, as soon as there are enough of them."""
    end = time.monotonic() + PATIENCE_S
    while not enough(jobs := cluster.running()):
        assert time.monotonic() < end, "no such jobs came"
        time.sleep(0.2)
    return jobs


def test_three_nodes_without_gpus_of_which_one_is_drained_and_one_dies(local: Local, tmp_path: Path) -> None:
    nodes = ["node0", "node1", "node2"]
    with slurm(tmp_path / "slurm", nodes, gpus=0) as cluster:
        study = local.again(tmp_path / "study").changed(setting("cpu", "device"))
        own = Clustered(study, cluster, tmp_path / "log")
        process = own.start(SCORES)
        jobs = _wait_for_jobs(cluster, lambda running: len(set(running.values())) > 1)
        dying = max(jobs.values())
        cluster.kill_node(dying)
        drained = next(name for name in nodes if name != dying)
        cluster.ask("scontrol", "update", f"NodeName={drained}", "State=DRAIN", "Reason=test")
        outcome = ended(process, own.log)
        assert outcome.status == 0, outcome.output
        seen = cluster.nodes_of_jobs()
        assert set(nodes) - {dying, drained} <= set(seen.values())
        assert cluster.states()[dying].startswith("down")
        assert cluster.states()[drained] == "drained"
    assert_same_tables(own.study.results, local.study.results, tables(own.study.results))
    assert (own.study.results / "summary/schemes.parquet").exists()


def _kill_at_random_moments(own: Clustered, process: subprocess.Popen[bytes]) -> list[str]:
    """Kill the processes of running jobs until enough were; each is left one attempt in which it can end."""
    moments, times = random.Random(SEED), Counter[str]()
    killed: list[str] = []
    while process.poll() is None and len(killed) < KILLS:
        time.sleep(moments.uniform(0, LONGEST_PAUSE_S))
        kinds = {job: kind for job, kind in own.slurm.kinds_of_jobs().items() if times[kind] < RETRIES}
        if jobs := sorted(own.slurm.running().keys() & kinds.keys()):
            job = moments.choice(jobs)
            if own.slurm.kill_job(job):
                killed.append(job)
                times[kinds[job]] += 1
    print(f"seed {SEED}: killed {dict(times)}")
    return killed


def test_a_whole_study_whose_jobs_are_killed_at_random_moments_gives_the_tables_of_a_local_run_and_the_page(
    local: Local, tmp_path: Path
) -> None:
    with slurm(tmp_path / "slurm", ["node0"], gpus=2) as cluster:
        own = Clustered(local.again(tmp_path / "study"), cluster, tmp_path / "log")
        process = own.start("all")
        killed = _kill_at_random_moments(own, process)
        outcome = ended(process, own.log)
        assert outcome.status == 0, outcome.output
        assert set(cluster.nodes_of_jobs().values()) == {"node0"}
        states = cluster.states_of_jobs()
    assert len(killed) == KILLS
    assert {job: state for job, state in states.items() if state != "COMPLETED"} == dict.fromkeys(killed, "FAILED")
    assert tables(own.study.results) == tables(local.study.results)
    assert_same_tables(own.study.results, local.study.results, tables(local.study.results))
    assert (own.study.results / "report.html").exists()
    assert list(own.study.results.rglob("*.partial")) == []
