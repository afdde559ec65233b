"""What every job shares: one readable way to fail, and an end with whoever called it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from inferometer.jobs import CALLER, Stopwatch

JOB = """
import sys, time
from pathlib import Path
from inferometer.errors import InferometerError
from inferometer.jobs import job
with job(sys.argv[1]):
    Path(sys.argv[2]).touch()
    if sys.argv[3:]:
        time.sleep(60)
    raise InferometerError("the key `thing` is wrong; mend it.")
"""


def _job(log: Path, begun: Path, *more: str, caller: int | None = None) -> subprocess.Popen[str]:
    """A process that runs a job, which notes in the file `begun` that it was let in."""
    environment = {name: value for name, value in os.environ.items() if name != CALLER}
    if caller is not None:
        environment[CALLER] = str(caller)
    command = [sys.executable, "-c", JOB, str(log), str(begun), *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_failing_job_says_its_sentence_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "job.log"
    process = _job(log, tmp_path / "begun")
    assert process.communicate() == ("", "")
    assert process.returncode == 1
    assert log.read_text(encoding="utf-8").endswith("ERROR the key `thing` is wrong; mend it.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full (Linux)")
def test_what_a_full_disk_keeps_out_of_the_log_goes_to_standard_error(tmp_path: Path) -> None:
    process = _job(Path("/dev/full"), tmp_path / "begun")
    assert process.communicate() == ("", "the key `thing` is wrong; mend it.\n")
    assert process.returncode == 1


def test_a_log_that_can_not_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = tmp_path / "file" / "job.log"
    process = _job(log, tmp_path / "begun")
    assert process.communicate() == ("", f"cannot write {log}: File exists; nothing was done.\n")
    assert process.returncode == 1
    assert not (tmp_path / "begun").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a C library that knows an end (Linux)")
def test_a_script_that_is_done_is_not_lost_to_a_library_that_aborts_at_the_end(tmp_path: Path) -> None:
    script = """
import atexit, ctypes, sys
from inferometer.jobs import job
library = ctypes.CDLL(None)
library.__cxa_atexit(ctypes.cast(library.abort, ctypes.c_void_p), None, None)
atexit.register(print, "tidied up")
if sys.argv[2:]:
    snakemake = "what Snakemake gives its scripts"
with job(sys.argv[1]):
    print("worked")
"""
    command = [sys.executable, "-c", script, str(tmp_path / "job.log")]
    done = subprocess.run([*command, "script"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "worked\ntidied up\n", "")
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGABRT, "it does abort"


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="needs a clock that no one sets (Linux)")
def test_the_time_to_start_does_not_depend_on_the_date(monkeypatch: pytest.MonkeyPatch) -> None:
    began = psutil.Process().create_time()
    expected = time.time() - began
    monkeypatch.setattr(time, "time", lambda: began - 108_000)
    assert Stopwatch().seconds["startup"] == pytest.approx(expected, abs=1.1)  # the oracle knows whole seconds


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs a system that says when a process ends (Linux)")
def test_a_job_ends_when_its_caller_is_killed(tmp_path: Path) -> None:
    log, begun = tmp_path / "job.log", tmp_path / "begun"
    caller = subprocess.Popen(["sleep", "60"])
    process = _job(log, begun, "sleep", caller=caller.pid)
    try:
        while not begun.exists():
            assert process.poll() is None
        caller.kill()
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
    finally:
        process.kill()
        caller.kill()
        caller.wait()
    late = _job(log, tmp_path / "begun late", caller=caller.pid)
    late.communicate(timeout=30)
    assert late.returncode == 1
    assert not (tmp_path / "begun late").exists()
