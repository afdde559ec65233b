"""Looking at the processes of a running study from outside, and what a machine lets tests do."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil

from tests.workflow.snakemake_runs import Study

Found = TypeVar("Found")

PATIENCE_S = 60


@contextmanager
def running(
    study: Study, rule: str, target: str, output: Path
) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """Snakemake and the job of a rule, as soon as the job's process runs; no process outlives the block."""
    with study.start(output, targets=[target]) as snakemake:
        try:
            yield snakemake, wait_for(lambda: job_of(snakemake, rule))
        finally:
            end(snakemake)


def end(snakemake: subprocess.Popen[bytes]) -> None:
    """Kill a process and all below it."""
    for process in processes_below(snakemake):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    snakemake.kill()


def processes_below(snakemake: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All children of a process and their children; none if it has ended."""
    try:
        return psutil.Process(snakemake.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def jobs_of(snakemake: subprocess.Popen[bytes]) -> dict[psutil.Process, str]:
    """The Python processes that run scripts of rules, and the scripts' names."""
    found = {}
    for process in processes_below(snakemake):
        with suppress(psutil.Error):  # it has just ended
            command = process.cmdline()
            if command and "python" in Path(command[0]).name and "/.snakemake/scripts/" in command[-1]:
                found[process] = command[-1].split(".")[-2]
    return found


def job_of(snakemake: subprocess.Popen[bytes], rule: str) -> psutil.Process | None:
    """The Python process that runs the script of a rule."""
    assert snakemake.poll() is None, "snakemake ended before its job was seen"
    return next((process for process, script in jobs_of(snakemake).items() if script == rule), None)


def wait_for(look: Callable[[], Found | None], patience_s: float = PATIENCE_S) -> Found:
    """What a look finds, as soon as it finds something."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if (found := look()) is not None:
            return found
        time.sleep(0.01)
    raise TimeoutError


def no_mounts() -> str | None:
    """Why this machine lets no test mount a disk of its own, or None if it does."""
    if shutil.which("unshare") is None:
        return "there is no command unshare"
    done = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True, text=True, check=False
    )
    return done.stderr.strip() or "mounting fails" if done.returncode else None
