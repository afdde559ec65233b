"""What every job shares: one log file, one way to fail, and a record of where its time went."""

import atexit
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from inferometer.errors import InferometerError

log = logging.getLogger("inferometer")

CALLER = "INFEROMETER_CALLER"  # environment variable: process id of the Snakemake that runs the jobs


def _seconds_since_process_start() -> float:
    """By a clock that no one sets, where the system says when a process began by such a one (Linux)."""
    try:
        began = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(began) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
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


def end_with_caller() -> None:
    """Make this process end as soon as its caller does.

    A job that outlived a killed Snakemake would write over what the next call makes, perhaps of other settings.
    """
    if CALLER not in os.environ:
        return
    try:
        caller = os.pidfd_open(int(os.environ[CALLER]))
    except ProcessLookupError:
        sys.exit(1)
    except (AttributeError, OSError):  # a system that can't say when a process ends
        return

    def wait() -> None:
        select.select([caller], [], [])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


class _LogFile(logging.FileHandler):
    """A log file whose messages reach standard error where the file can't take them, as on a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr)


def _leave() -> None:
    """End the process of a script that is done, once what others have left to do is done too.

    A library's thread that is still about while an interpreter is taken down may abort it (apache/arrow#34314), and
    Snakemake would take that for a failure and remove what the job has made.
    """
    atexit.unregister(_leave)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


@contextmanager
def job(log_file: str | Path) -> Iterator[Stopwatch]:
    """Run a script's body with its log file set up, and end it with status 1 and a readable log if it fails.

    A fault that the user can mend is one sentence; anything else leaves its traceback in the log.
    """
    end_with_caller()
    path = Path(log_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log_handler = _LogFile(path, mode="w")
    except OSError as error:
        sys.exit(f"cannot write {path}: {error.strerror}; nothing was done.")
    logging.basicConfig(
        handlers=[log_handler],
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
    if hasattr(sys.modules["__main__"], "snakemake"):
        atexit.register(_leave)
