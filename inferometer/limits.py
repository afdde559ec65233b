"""Limits of time and memory for a piece of work whose program came from elsewhere."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from inferometer.memory import within


@contextmanager
def limited(seconds: float, more_bytes: int) -> Iterator[None]:
    """Stop the block with TimeoutError after so many seconds, or with MemoryError when it takes so many more bytes.

    To be used in a process's main thread, as only there can a signal stop it. Limits that hold already hold on.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, stop)
    started = time.monotonic()
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with within(more_bytes):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if remaining:
            left = remaining - (time.monotonic() - started)
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001), interval)
