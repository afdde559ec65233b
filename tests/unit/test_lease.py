"""Devices of jobs side by side: never two on one, none lost with a job that is killed."""

import random
import subprocess
import sys
from pathlib import Path

DEVICES = ("GPU-a", "GPU-b", "GPU-c")
JOBS = 50
JOB = """
import os, signal, sys, time
from pathlib import Path
from inferometer.lease import leased

folder, notes, ends, seconds, *devices = sys.argv[1:]
place = leased(tuple(devices), Path(folder))
assert leased(tuple(devices), Path(folder)) == place

def note(what):
    with open(notes, "a") as file:  # a line this short is written at once
        file.write(f"{devices[place]} {what} {os.getpid()}\\n")

note("begins")
time.sleep(float(seconds))
note(ends)
if ends == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _start(folder: Path, ends: str, seconds: float, devices: tuple[str, ...] = DEVICES) -> subprocess.Popen[bytes]:
    arguments = [str(folder / "locks"), str(folder / "notes"), ends, str(seconds), *devices]
    return subprocess.Popen([sys.executable, "-c", JOB, *arguments])


def test_fifty_jobs_some_of_them_killed_never_share_a_device(tmp_path: Path) -> None:
    chance = random.Random(0)
    ends = ["dies" if chance.random() < 0.3 else "ends" for _ in range(JOBS)]
    jobs = [_start(tmp_path, end, chance.uniform(0, 0.1)) for end in ends]
    statuses = [job.wait(60) for job in jobs]
    assert statuses == [-9 if end == "dies" else 0 for end in ends]
    lines = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert len(lines) == 2 * JOBS
    assert {device for device, _, _ in lines} == set(DEVICES)
    for device in DEVICES:
        own = [(what, job) for name, what, job in lines if name == device]
        assert [what == "begins" for what, _ in own] == [True, False] * (len(own) // 2), "one after the other"
        assert [job for _, job in own[::2]] == [job for _, job in own[1::2]]


def test_a_job_gets_only_devices_that_it_sees(tmp_path: Path) -> None:
    """As with CUDA_VISIBLE_DEVICES: what one job sees as its first may be another's second."""
    jobs = [_start(tmp_path, "ends", 0.1, devices) for devices in [DEVICES[1:]] * 4 + [DEVICES[2:]] * 4]
    assert [job.wait(60) for job in jobs] == [0] * 8
    lines = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert {device for device, _, _ in lines} == set(DEVICES[1:])
    for device in DEVICES[1:]:
        own = [job for name, _, job in lines if name == device]
        assert own[::2] == own[1::2]
