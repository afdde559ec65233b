"""Memory that is left, of the host and of control groups, and the wall that a process gives itself there."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from inferometer.memory import CGROUPS, OWN_CGROUPS, available_bytes

MIB = 1 << 20
LIMIT_BYTES = 512 * MIB
UNLIMITED = {"": "max", "memory": str(2**63 - 4096)}
FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
HOARD = """
from contextlib import nullcontext
from inferometer.memory import available_bytes, within
with {wall}:
    hoard = [bytearray(b"x" * (4 << 20)) for _ in range(2000)]
"""
IN_A_GROUP = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'


def group(path: Path, controller: str, limit: str, used: int, cached: int) -> None:
    """A control group's folder as Linux shows it."""
    path.mkdir(parents=True, exist_ok=True)
    names = FILES[controller]
    (path / names[0]).write_text(f"{limit}\n")
    (path / names[1]).write_text(f"{used}\n")
    (path / "memory.stat").write_text(f"anon 17\n{names[2]} {cached}\n")


@pytest.mark.parametrize("controller", FILES)
def test_the_tightest_group_around_the_process_counts_and_cached_files_make_way(
    tmp_path: Path, controller: str
) -> None:
    root, own = tmp_path / "groups", tmp_path / "own"
    own.write_text(f"9:cpuset:/elsewhere\n3:{controller}:/slurm/job_7/step_0\n")
    top = root / controller
    group(top / "slurm", controller, UNLIMITED[controller], 3 * MIB, 0)
    group(top / "slurm/job_7", controller, str(100 * MIB), 60 * MIB, 8 * MIB)
    group(top / "slurm/job_7/step_0", controller, UNLIMITED[controller], 50 * MIB, 8 * MIB)
    group(root / "elsewhere", controller, "0", 0, 0)
    assert available_bytes(root, own) == 48 * MIB


def test_a_group_that_is_full_has_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/full\n")
    group(tmp_path / "full", "", str(10 * MIB), 12 * MIB, 0)
    assert available_bytes(tmp_path, tmp_path / "own") == 0


def test_without_groups_it_is_what_the_host_has(tmp_path: Path) -> None:
    found = available_bytes(tmp_path, tmp_path / "own")
    assert 0 < found <= psutil.virtual_memory().total


@pytest.fixture
def tight_group() -> Iterator[Path]:
    """A real control group with little memory, where the system lets us make one."""
    v1 = (CGROUPS / "memory" / FILES["memory"][0]).exists()
    controller = "memory" if v1 else ""
    lines = OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.exists() else []
    own = [line.split(":", 2)[2] for line in lines if line.split(":")[1] == controller]
    if not own:
        pytest.skip("this system has no control groups for memory")
    folder = CGROUPS / controller / own[0].lstrip("/") / f"inferometer-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / FILES[controller][0]).write_text(str(LIMIT_BYTES))
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    folder.rmdir()


def hoarding(tight_group: Path, wall: str) -> subprocess.CompletedProcess[str]:
    """A process of the group that takes memory until something stops it."""
    command = ["sh", "-c", IN_A_GROUP, "sh", str(tight_group), sys.executable, "-c", HOARD.format(wall=wall)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_process_that_goes_beyond_its_group_is_killed_without_a_word(tight_group: Path) -> None:
    done = hoarding(tight_group, "nullcontext()")
    assert done.returncode == -signal.SIGKILL
    assert done.stderr == ""


def test_within_the_wall_it_gets_an_error_instead(tight_group: Path) -> None:
    done = hoarding(tight_group, "within(available_bytes())")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "MemoryError"


def test_the_wall_is_gone_after_the_block_and_never_above_one_that_stood_before() -> None:
    program = """
import resource
from inferometer.memory import available_bytes, within
assert resource.getrlimit(resource.RLIMIT_DATA) == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
with within(available_bytes()):
    inner = resource.getrlimit(resource.RLIMIT_DATA)[0]
assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY != inner
resource.setrlimit(resource.RLIMIT_DATA, (inner // 8, inner // 2))
with within(available_bytes()):
    assert resource.getrlimit(resource.RLIMIT_DATA) == (inner // 8, inner // 2)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
