"""What tests of the cluster share: a project, a small study, and what it gives on this machine without a cluster."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.cluster.slurm import Slurm, missing_programs
from tests.workflow.snakemake_runs import Outcome, Place, Study, new_study, setting

SCHEMES = ("fp", "w8a8", "w4a4", "nf4-bnb")
TARGET = "evaluation"
TIMEOUT_S = 400


def _why_not() -> str | None:
    if missing := missing_programs():
        return f"no Slurm here: {', '.join(missing)} not found (Debian packages slurm-wlm and munge)"
    if find_spec("snakemake_executor_plugin_slurm") is None:
        return "Snakemake's executor plugin for Slurm is not installed (pip install inferometer[slurm])"
    return None if os.geteuid() == 0 else "a Slurm of one's own needs root"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a cluster where there can be none, and say why."""
    if reason := _why_not():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@dataclass(frozen=True)
class Clustered:
    """A study that is run by Slurm, with the profile that users have."""

    study: Study
    slurm: Slurm

    def command(self) -> list[str]:
        """The command line: the profile, and what this small cluster lacks or can do sooner."""
        content = yaml.safe_dump(dict(self.study.config), sort_keys=False)
        overlay = self.study.place.overlays / f"{self.study.folder.name}.yaml"
        overlay.write_text(content, encoding="utf-8")
        project = self.study.place.project
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(project / "Snakefile")),
            *("--directory", str(self.study.folder), "--configfile", str(overlay)),
            *("--workflow-profile", str(project / "profiles/slurm"), "--cores", "2"),
            *("--slurm-no-account", "--slurm-status-command", "squeue"),
            *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
            *("--latency-wait", "10"),
            *("--", TARGET),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """That of a user of the cluster, whose jobs get one thread of this small machine each."""
        return self.study.place.environment | self.slurm.environment | {"OMP_NUM_THREADS": "1"}

    def run(self) -> Outcome:
        """Run Snakemake to its end."""
        process = self.start()
        output, _ = process.communicate(timeout=TIMEOUT_S)
        return Outcome(process.returncode, output)

    def start(self) -> subprocess.Popen[str]:
        """Start Snakemake, its output in a pipe."""
        return subprocess.Popen(
            self.command(),
            env=self.environment,
            cwd=self.study.place.outside,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )


@dataclass(frozen=True)
class Local:
    """A study that ran on this machine without a cluster, and a maker of the same study that did not run yet."""

    study: Study
    again: Callable[[Path], Study]


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    """The shared local run."""
    folder = tmp_path_factory.mktemp("cluster")
    place = Place.make(folder)

    def make(path: Path) -> Study:
        return new_study(path, place).changed(setting(list(SCHEMES), "study", "schemes"))

    study = make(folder / "local")
    outcome = study.snakemake(targets=[TARGET])
    assert outcome.status == 0, outcome.output
    return Local(study, make)
