"""Devices for jobs that run side by side: each takes one that no other job holds.

What holds a device is a lock of the system on a file, which ends with the process however that ends: there is nothing
to clean up after a job that was killed.
"""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

LOCKS = Path(tempfile.gettempdir()) / "inferometer-devices"  # of this machine, for all its users
PAUSE_S = 0.2

log = logging.getLogger("inferometer")


def _open_to_all(path: Path) -> int:
    """A file descriptor of a file that every user of the machine may lock, whatever this user's umask."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    with suppress(PermissionError):  # it is another user's, who did this
        os.fchmod(descriptor, 0o666)
    return descriptor


def _locked(path: Path) -> bool:
    """Whether this process got the lock of a file, to hold until it ends."""
    descriptor = _open_to_all(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


@cache
def leased(devices: Sequence[str], folder: Path = LOCKS) -> int:
    """The place in `devices` of one that this process has to itself from now on; it waits until one is free.

    `devices` are names that are the same for every process of the machine, such as a GPU's UUID. Asked again for one
    of the same devices, a process gets the one that it has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(PermissionError):
        folder.chmod(0o1777)
    waits = False
    while True:
        for place, device in enumerate(devices):
            if _locked(folder / device):
                return place
        if not waits:
            log.info("waiting for one of %d devices, which other jobs hold", len(devices))
            waits = True
        time.sleep(PAUSE_S)
