"""Files that are either whole or absent, and digests that say which file it is."""

import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from inferometer.errors import InferometerError

CHUNK_BYTES = 1 << 20

_renamed: Callable[[Path, Path], object] = Path.replace


def rename_by(renamed: Callable[[Path, Path], object]) -> None:
    """Have another process give files their names, by a function of the path that a file has and the one it gets."""
    global _renamed
    _renamed = renamed


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def git_blob_sha1_of(path: Path) -> str:
    """Hexadecimal object id that git gives a file's content: the hub states it for every small file."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def verify_sha256(path: Path, expected: str, what: str) -> None:
    """Raise InferometerError unless the file has the pinned digest; `what` names it to the user."""
    actual = sha256_of(path)
    if actual != expected:
        raise InferometerError(
            f"{what} does not match its pinned hash: expected sha256 {expected}, got {actual}; "
            "nothing was read from it. Check the pin in the configuration, or fetch the file again."
        )


def _cannot_write(path: Path, error: OSError | SafetensorError) -> InferometerError:
    """Any file operation of the block may be at fault: the reason names the file if it is another one."""
    reason, culprit = getattr(error, "strerror", None) or error, getattr(error, "filename", None)
    where = f" ({culprit})" if culprit and ".partial" not in str(culprit) else ""
    return InferometerError(f"cannot write {path}: {reason}{where}; nothing was kept.")


def _remove_what_killed_jobs_left(path: Path) -> None:
    for ending in ("partial", "retired"):
        for left in path.parent.glob(f".{glob.escape(path.name)}.[0-9]*.{ending}"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `path` only if the block succeeds.

    A reader therefore never sees half a file, also when the disk is full or the job is killed.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_what_killed_jobs_left(path)
        yield partial
        _renamed(partial, path)
    except (OSError, SafetensorError) as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # its folder could not be made
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Like `whole_file` for a folder: what stood at `path` is replaced only when the new one is complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    retired = path.with_name(f".{path.name}.{os.getpid()}.retired")
    try:
        _remove_what_killed_jobs_left(path)
        partial.mkdir(parents=True)
        yield partial
        if path.is_dir():
            _renamed(path, retired)  # at once: a job killed while deleting would leave half of it
        _renamed(partial, path)
    except (OSError, SafetensorError) as error:
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)
