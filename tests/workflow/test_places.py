"""Odd places and clocks: paths, homes, umasks and dates that no one thought of give the same tables."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from inferometer.runs import RUN
from inferometer.tables import read_table
from tests.workflow.processes import no_mounts
from tests.workflow.snakemake_runs import Place, Study

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study

FOLDER = "a b é 文字 'q' \"d\" $HOME {x}; #1"
TARGETS = (
    "results/tiny/calibration/distributions.svg",
    "results/tiny/evaluation/fp/fidelity.parquet",
    "results/fundamentals/digits.parquet",
)
COMPARED = (
    "results/tiny/sources/model.json",
    "results/sources/images/optdigits.safetensors",
    "results/sources/corpora/calibration-text.parquet",
    "results/sources/questions/quiz.parquet",
    "results/tiny/calibration/activations.parquet",
    "results/tiny/evaluation/fp/hidden.safetensors",
    "results/tiny/evaluation/fp/choices.parquet",
    *TARGETS,
)
WITHOUT_HOME = ("env", "-u", "HOME")
PRIVATE = ("sh", "-c", 'umask 077; exec "$@"', "sh")
READ_ONLY_HOME = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o ro tmpfs "$HOME" && exec "$@"', "sh")


def moved(study: Study, folder: Path) -> Study:
    """Project, models and texts of a study at another place, with nothing made yet."""
    folder.mkdir(parents=True)
    place = Place.make(folder)
    shutil.copytree(study.folder, folder / "study", ignore=shutil.ignore_patterns("results", ".snakemake"))
    return Study(folder / "study", place, study.config)


def assert_same(study: Study, original: Study) -> None:
    for name in COMPARED:
        assert (study.folder / name).read_bytes() == (original.folder / name).read_bytes(), name


def test_odd_paths_a_private_umask_and_no_home_give_the_same_tables(study: Study, tmp_path: Path) -> None:
    odd = moved(study, tmp_path / FOLDER)
    outcome = odd.snakemake(targets=TARGETS, wrapper=(*WITHOUT_HOME, *PRIVATE))
    assert outcome.status == 0, outcome.output
    assert_same(odd, study)
    written = [path for path in odd.results.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in written if path.stat().st_mode & 0o077]
    page = [sys.executable, "-m", "inferometer.report", str(odd.results)]
    drawn = subprocess.run(
        page, env=odd.place.environment, cwd=odd.place.outside, capture_output=True, text=True, check=False
    )
    assert drawn.returncode == 0, drawn.stderr
    assert odd.would_run(*TARGETS) == set()


def test_a_home_that_can_not_be_written_gives_the_same_tables(study: Study, tmp_path: Path) -> None:
    if reason := no_mounts():
        pytest.skip(reason)
    own = moved(study, tmp_path / "own")
    cache = f"XDG_CACHE_HOME={tmp_path / 'cache'}"  # Snakemake's own
    outcome = own.snakemake(targets=TARGETS, wrapper=("env", cache, *READ_ONLY_HOME))
    assert outcome.status == 0, outcome.output
    assert_same(own, study)
    assert not list(own.place.home.iterdir())


@pytest.mark.parametrize("hours", [-30, 30], ids=["into the past", "into the future"])
def test_dates_of_a_clock_that_jumped_make_nothing_stale(own_copy: Study, hours: int) -> None:
    evaluated = own_copy.results / "tiny" / "evaluation"
    made = [*own_copy.results.glob("sources/*/*"), *evaluated.glob("*/*")]
    date(made, time.time() + hours * 3600)
    assert own_copy.would_run() == set()
    table = evaluated / "w8a8" / "perplexity.parquet"
    target, whole = str(table.relative_to(own_copy.folder)), table.read_bytes()
    shutil.rmtree(table.parent)
    if hours > 0:  # Snakemake refuses what would seem older than what it was made from
        outcome = own_copy.snakemake(targets=[target])
        assert outcome.status == 1
        assert f"Output {target} has older modification time" in outcome.sentence
        assert "clock skew" in outcome.sentence
        assert not table.exists()
        date([path for path in made if path.exists()], time.time())
    assert own_copy.snakemake(targets=[target]).jobs == {"evaluate tiny/w8a8"}
    assert table.read_bytes() == whole


@pytest.mark.parametrize("jump", ["-30h", "+30h"], ids=["back", "forward"])
def test_a_clock_that_is_set_while_jobs_run_changes_no_table(study: Study, tmp_path: Path, jump: str) -> None:
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        pytest.skip("no clock can be set here: libfaketimeMT.so.1 not found (Debian package faketime)")
    own, clock = moved(study, tmp_path / "own"), tmp_path / "clock"
    clock.write_text("+0", encoding="utf-8")
    settings = {
        "LD_PRELOAD": libraries[0],
        "FAKETIME_TIMESTAMP_FILE": clock,
        "FAKETIME_NO_CACHE": 1,
        "FAKETIME_DONT_FAKE_MONOTONIC": 1,  # nobody sets that one
        "NO_FAKE_STAT": 1,  # dates of files are shown as they were written
    }
    wrapper = ("env", *(f"{name}={value}" for name, value in settings.items()))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(own.snakemake, targets=TARGETS, wrapper=wrapper)
        while not (own.results / "tiny/sources/model.json").exists():
            assert not running.done(), running.result().output
            time.sleep(0.05)
        clock.write_text(jump, encoding="utf-8")
        outcome = running.result()
    if jump.startswith("-"):  # what is made now seems older than what it was made from, and is not kept
        assert outcome.status == 1
        assert "clock skew" in outcome.sentence
        outcome = own.snakemake(targets=TARGETS)
    assert outcome.status == 0, outcome.output
    assert_same(own, study)
    runs = [read_table(RUN, path) for path in own.results.rglob("run.parquet")]
    phases = pd.concat(runs)[["startup_s", "load_s", "compute_s"]]
    assert phases.ge(0).all(axis=None)
    assert phases.lt(3600).all(axis=None)
    assert own.would_run(*TARGETS) == set()


def date(paths: Iterable[Path], moment: float) -> None:
    """Give files another date, in seconds since 1970."""
    for path in paths:
        os.utime(path, (moment, moment), follow_symlinks=False)
