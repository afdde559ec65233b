"""Limits of time and memory for a piece of work whose program came from elsewhere."""

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil


@contextmanager
def limited(seconds: float, more_bytes: int) -> Iterator[None]:
    """Stop the block with TimeoutError after so many seconds, or with MemoryError when it takes so many more bytes.

    To be used in a process's main thread, as only there can a signal stop it. Limits that hold already hold on.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = psutil.Process().memory_info().vms + more_bytes
    bounds = [bound for bound in (wanted, soft, hard) if bound != resource.RLIM_INFINITY]
    handler = signal.signal(signal.SIGALRM, stop)
    started = time.monotonic()
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with suppress(ValueError, OSError):  # not every system limits address space
            resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
        yield
    finally:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if remaining:
            left = remaining - (time.monotonic() - started)
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001), interval)
