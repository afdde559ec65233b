"""How much main memory a process may still take, and a wall there that Python can be told of.

Linux hands out more memory than there is, and kills a process when it runs short: nothing is left of it, not even a
reason. A process that has given itself a limit gets an error instead, which names what was too large.
"""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class _Layout:
    """Where a version of Linux control groups says what a group may take, has taken, and could give back at once."""

    folder: str
    limit: str
    used: str
    cached: str


_VERSIONS = {
    "": _Layout("", "memory.max", "memory.current", "inactive_file"),
    "memory": _Layout("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def _left_in(group: Path, layout: _Layout) -> int | None:
    """Bytes that a control group may still take, or None where nothing is limited."""
    try:
        limit = (group / layout.limit).read_text().strip()
        used = int((group / layout.used).read_text())
        stated = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:  # the root of all groups has no such files
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(stated.get(layout.cached, 0)))


def available_bytes(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """Main memory that could still be had: of the host, or of the tightest control group around this process."""
    least = int(psutil.virtual_memory().available)
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controller, name = line.split(":", 2)
        if (layout := _VERSIONS.get(controller)) is not None:
            top = root / layout.folder
            group = top / name.lstrip("/")
            around = [group, *(path for path in group.parents if path.is_relative_to(top))]
            left = (_left_in(path, layout) for path in around)
            least = min([least, *(size for size in left if size is not None)])
    return least


@contextmanager
def within(more_bytes: int) -> Iterator[None]:
    """Let the block take no more than so many bytes; an allocation that would go beyond them raises an error.

    What counts is RLIMIT_DATA: private memory that can be written, whether touched or not. Only Linux counts it so. A
    limit that holds already holds on.
    """
    if sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    least = [psutil.Process().memory_info().data + more_bytes]
    least += [limit for limit in before if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(least), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
