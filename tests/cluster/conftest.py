"""What tests of ways out of one machine share: a project, a small study, and what it gives on this machine alone."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from inferometer.tables import read_table
from inferometer.tables_doc import declared_tables, table_of
from tests.workflow.snakemake_runs import ROOT, Outcome, Place, Study, new_study, setting

SCHEMES = ("fp", "w8a8-smooth", "w4a4", "w4a4-rotated-g16")
TABLES = ("sources", "claims", "summarize_runs", "list_rules")  # these rules need every table of the study
TIMEOUT_S = 900

# As docs/results-tables.md says; CLAIMS are verdicts on these too.
TIMED = (
    *("RUN", "MACHINE", "MACHINE_SAMPLES", "DECODER_LATENCY", "DECODER_SPEED", "LATENCY", "MEMORY", "CACHE"),
    *("KERNELS", "BASELINE", "PROFILE", "KNEES", "SLOPES", "CACHE_SPEED", "KERNEL_SPEED", "CACHE_LATENCY"),
    *("CACHE_MEMORY", "CACHE_LENGTHS", "KV_CACHE", "CLAIMS"),
)
DECLARED = declared_tables(ROOT)


@dataclass(frozen=True)
class Local:
    """A study that ran on this machine alone, and a maker of the same study that did not run yet."""

    study: Study
    again: Callable[[Path], Study]


def profiled(study: Study, profile: str, *options: str, targets: Sequence[str]) -> list[str]:
    """The command line that runs a study by a profile of the project; one thread is enough for tiny models."""
    overlay = study.place.overlays / f"{study.folder.name}-{profile}.yaml"
    overlay.write_text(yaml.safe_dump(dict(study.config), sort_keys=False), encoding="utf-8")
    project = study.place.project
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(project / "Snakefile")),
        *("--directory", str(study.folder), "--configfile", str(overlay)),
        *("--workflow-profile", str(project / "profiles" / profile), *options, "--", *targets),
    ]


def start(study: Study, command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command of a study's with more in its environment, its output in a file."""
    with log.open("wb") as sink:
        return subprocess.Popen(
            command,
            env={**study.place.environment, "OMP_NUM_THREADS": "1", **environment},
            cwd=study.place.outside,
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


def ended(process: subprocess.Popen[bytes], log: Path) -> Outcome:
    """How a started command ends."""
    try:
        status = process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Outcome(status, log.read_text(encoding="utf-8", errors="replace"))


def tables(results: Path) -> set[str]:
    """Every table below a folder of results."""
    return {path.relative_to(results).as_posix() for path in results.rglob("*.parquet")}


def assert_same_tables(found: Path, expected: Path, names: set[str]) -> None:
    """Each of these tables has the same bytes; one that holds times has the same columns and the same keys."""
    compared = {"exactly": 0, "by key": 0}
    for name in sorted(names):
        declaration = table_of(name, DECLARED)
        if declaration.name in TIMED:
            key = [column for column in declaration.table.key if column != "repetition"]  # as many as time allows
            rows = [read_table(declaration.table, folder / name, key).drop_duplicates() for folder in (found, expected)]
            assert rows[0].reset_index(drop=True).equals(rows[1].reset_index(drop=True)), name
            compared["by key"] += 1
        else:
            assert (found / name).read_bytes() == (expected / name).read_bytes(), name
            compared["exactly"] += 1
    assert compared["exactly"] > 0, compared


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    """The shared local run of every table; `device` stays open, so that a scheduler is asked for GPUs."""
    folder = tmp_path_factory.mktemp("cluster")
    place = Place.make(folder)

    def make(path: Path) -> Study:
        study = new_study(path, place).changed(setting(list(SCHEMES), "study", "schemes"))
        return study.changed(setting(["tiny"], "study", "models")).changed(setting("auto", "device"))

    study, log = make(folder / "local"), folder / "local.log"
    outcome = ended(start(study, study.command(targets=TABLES), {}, log), log)
    assert outcome.status == 0, outcome.output
    return Local(study, make)
