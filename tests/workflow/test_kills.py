"""Kill -9 of jobs and of Snakemake at random moments: the next call ends with the results of an undisturbed run."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from inferometer.runs import RUN
from inferometer.tables import read_table
from tests.workflow.processes import end, jobs_of, running, wait_for
from tests.workflow.snakemake_runs import Study, setting

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study

KINDS = ("job", "snakemake", "everything")
KILLS = 11  # in each of two lineages of calls, which run side by side
PATIENCE_S = 600  # for what processes on a busy machine may take
LONGEST_WAIT_S = 4.0
TARGETS = (
    "results/sources/images/optdigits.safetensors",
    "results/capacity/requests.parquet",
    "results/tiny/calibration/distributions.svg",
    "results/tiny/rotation/0/paths.parquet",
    "results/tiny/evaluation/w8a8/storage.parquet",
    "results/summary/ranges.csv",
)
TEXTS = "results/sources/corpora/evaluation-text.parquet"


def without_results(study: Study, folder: Path) -> Study:
    """A copy of a study's folder in which nothing was made yet."""
    shutil.copytree(study.folder, folder, ignore=shutil.ignore_patterns("results", ".snakemake"))
    return Study(folder, study.place, study.config)


def made(study: Study) -> set[Path]:
    """The files of the results, relative to the folder, but those that Snakemake or logging writes of each job."""
    paths = (Path(found, name) for found, _, names in os.walk(study.results) for name in names)
    relative = {path.relative_to(study.folder) for path in paths}
    return {path for path in relative if path.parts[1] not in ("logs", "benchmarks")}


def unlock(study: Study) -> None:
    """Remove the lock of a killed Snakemake, if there is one, as its message tells to."""
    if any((study.folder / ".snakemake" / "locks").glob("*.lock")):
        assert study.snakemake("--unlock").status == 0


def wait_for_a_moment(study: Study, snakemake: subprocess.Popen[bytes], chance: random.Random) -> bool:
    """Wait for a random moment, in half of the cases one in which a job has begun to write; False if there is none."""
    wait_for(lambda: jobs_of(snakemake) or snakemake.poll() is not None or None, PATIENCE_S)
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0, LONGEST_WAIT_S))
    else:
        before = made(study)
        wait_for(lambda: snakemake.poll() is not None or made(study) - before or None, PATIENCE_S)
        time.sleep(chance.uniform(0, 0.02))
    return snakemake.poll() is None


def kill(kind: str, snakemake: subprocess.Popen[bytes], chance: random.Random) -> list[psutil.Process]:
    """Kill -9 of one job, of Snakemake alone, or of all at once; returns what Snakemake leaves behind."""
    jobs = list(jobs_of(snakemake))
    match kind:
        case "job":
            chance.choice(jobs).kill()
            return []
        case "snakemake":
            snakemake.kill()
            return jobs
        case _:
            os.killpg(snakemake.pid, signal.SIGKILL)
            return []


def assert_as_undisturbed(study: Study, undisturbed: Study) -> None:
    """Every file is whole and, where it holds no times, the same as that of a run that nobody disturbed."""
    files = made(study)
    assert len(files) > 25
    for file in files:
        if file.name == "run.parquet":
            assert len(read_table(RUN, study.folder / file)) == 1
        elif not (study.folder / file).is_symlink():
            assert (study.folder / file).read_bytes() == (undisturbed.folder / file).read_bytes(), file
    assert not [path for path in study.results.rglob(".*") if path.suffix in (".partial", ".retired")]
    assert not any(path.is_file() for path in (study.folder / ".snakemake" / "incomplete").rglob("*"))
    logs = list((study.results / "logs").rglob("*.log"))
    assert logs
    assert all(log.read_text(encoding="utf-8").endswith("done\n") for log in logs)


def lineage(study: Study, folder: Path, seed: int) -> Counter[str]:
    """Calls that are killed one after the other, then one that is not; counts what was killed.

    When the targets are made before enough was killed, the calls begin from nothing again.
    """
    own, chance, done = without_results(study, folder / "study"), random.Random(seed), Counter[str]()
    left: list[psutil.Process] = []
    while done.total() < KILLS:
        unlock(own)
        kind = KINDS[(seed + done.total()) % len(KINDS)]
        snakemake = own.start(folder / f"{done.total()}.txt", targets=TARGETS)
        try:
            if wait_for_a_moment(own, snakemake, chance):
                with suppress(psutil.NoSuchProcess, IndexError):  # the job has just ended
                    left += kill(kind, snakemake, chance)
                    done[kind] += 1
            status = snakemake.wait(PATIENCE_S)
        except BaseException:
            end(snakemake)
            raise
        if status == 0:
            assert_as_undisturbed(own, study)
            shutil.rmtree(own.results)
            shutil.rmtree(own.folder / ".snakemake")
    unlock(own)
    last = own.snakemake(targets=TARGETS)
    assert last.status == 0, last.output
    assert_as_undisturbed(own, study)
    assert own.would_run(*TARGETS) == set()
    assert not [process for process in left if process.is_running()]
    return done


def test_twenty_kills_at_random_moments_lose_nothing(study: Study, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor() as pool:
        done = sum(pool.map(lineage, [study] * 2, folders, range(2)), Counter[str]())
    assert done.total() >= 20
    assert min(done[kind] for kind in KINDS) >= 6


def test_a_job_ends_with_its_snakemake_and_never_writes_over_what_the_next_call_makes(
    own_copy: Study, tmp_path: Path
) -> None:
    other = "texts/other.txt"
    (own_copy.folder / other).write_text("word5 word6", encoding="utf-8")
    (own_copy.folder / TEXTS).unlink()
    with running(own_copy, "fetch_corpus", TEXTS, tmp_path / "output.txt") as (snakemake, job):
        job.suspend()
        snakemake.kill()
        snakemake.wait(PATIENCE_S)
        try:
            changed = own_copy.changed(setting(other, "corpora", "evaluation-text", "path"))
            changed = changed.changed(setting("txt", "corpora", "evaluation-text", "format"))
            refused = changed.snakemake(targets=[TEXTS])
            assert refused.status != 0
            assert "Directory cannot be locked" in refused.output
            assert "the remaining lock was likely caused by a kill signal or a power loss" in refused.sentence
            assert "It can be removed with the --unlock argument." in refused.sentence
            assert changed.snakemake("--unlock").status == 0
            assert changed.snakemake(targets=[TEXTS]).jobs == {"fetch_corpus evaluation-text"}
            made_next = (own_copy.folder / TEXTS).read_bytes()
            job.resume()
            job.wait(PATIENCE_S)
        finally:
            with suppress(psutil.NoSuchProcess):
                job.kill()
    assert (own_copy.folder / TEXTS).read_bytes() == made_next
