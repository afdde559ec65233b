"""What every job shares: one log file, one way to fail, and a record of where its time went."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from inferometer.errors import InferometerError

log = logging.getLogger("inferometer")


def _seconds_since_process_start() -> float:
    return time.time() - psutil.Process(os.getpid()).create_time()


class Stopwatch:
    """Wall seconds of a job by phase: `startup` (interpreter and imports), then the phases that the job names."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"startup": _seconds_since_process_start()}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            log.info("%s took %.2f s", name, self.seconds[name])


@contextmanager
def job(log_file: str | Path) -> Iterator[Stopwatch]:
    """Run a script's body with its log file set up, and end it with status 1 and a readable log if it fails.

    A fault that the user can mend is one sentence; anything else leaves its traceback in the log.
    """
    path = Path(log_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=path,
        filemode="w",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        force=True,
    )
    logging.captureWarnings(True)
    try:
        yield Stopwatch()
        log.info("done")
    except InferometerError as error:
        log.error("%s", error)
        sys.exit(1)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:  # a library in Rust panics with a kind of its own
        log.error("unexpected error\n%s", traceback.format_exc())
        sys.exit(1)
    finally:
        logging.shutdown()
