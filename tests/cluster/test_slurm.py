"""A study by a real Slurm: the tables of a local run, on one node, and on three of which two are lost on the way."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import TIMEOUT_S, Clustered, Local
from tests.cluster.slurm import Slurm, slurm
from tests.workflow.snakemake_runs import Study

PATIENCE_S = 120

pytestmark = pytest.mark.timeout(480)


def _tables(study: Study) -> dict[str, bytes]:
    """The content of every table that holds no times; names are those of the files below the results."""
    files = study.results.rglob("*.parquet")
    timed = ("run.parquet", "runs.parquet", "sensitivity-run.parquet")
    return {str(path.relative_to(study.results)): path.read_bytes() for path in files if path.name not in timed}


def test_one_node_gives_the_tables_of_a_local_run(local: Local, tmp_path: Path) -> None:
    with slurm(tmp_path / "slurm", ["node0"], gpus=2) as cluster:
        own = Clustered(local.again(tmp_path / "study"), cluster)
        outcome = own.run()
        assert outcome.status == 0, outcome.output
        assert set(cluster.nodes_of_jobs().values()) == {"node0"}
    assert _tables(own.study) == _tables(local.study)


def _wait_for_jobs(cluster: Slurm, enough: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """The node of each running job, as soon as there are enough of them."""
    end = time.monotonic() + PATIENCE_S
    while not enough(jobs := cluster.running()):
        assert time.monotonic() < end, "no such jobs came"
        time.sleep(0.2)
    return jobs


def test_three_nodes_of_which_one_is_drained_and_one_dies(local: Local, tmp_path: Path) -> None:
    nodes = ["node0", "node1", "node2"]
    with slurm(tmp_path / "slurm", nodes, gpus=1) as cluster:
        own = Clustered(local.again(tmp_path / "study"), cluster)
        process = own.start()
        jobs = _wait_for_jobs(cluster, lambda running: len(set(running.values())) > 1)
        dying = max(jobs.values())
        cluster.kill_node(dying)
        drained = next(name for name in nodes if name != dying)
        cluster.ask("scontrol", "update", f"NodeName={drained}", "State=DRAIN", "Reason=test")
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, output
        seen = cluster.nodes_of_jobs()
        assert set(nodes) - {dying, drained} <= set(seen.values())
        assert cluster.states()[dying].startswith("down")
        assert cluster.states()[drained] == "drained"
    assert _tables(own.study) == _tables(local.study)
