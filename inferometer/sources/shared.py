"""What was prepared for one study, taken by others: entries of a folder that several studies and users share.

Snakemake's own cache between workflows neither verifies what it hands out nor keeps two first users from writing over
each other, so this is another. An entry is a folder named by the digest of all that decides its content. It is
written under a lock, becomes visible whole, and is held against its digests each time that it is taken.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inferometer.errors import InferometerError
from inferometer.files import sha256_of, whole_file, whole_folder

VARIABLE = "INFEROMETER_SHARED"
DIGESTS = "digests.json"
WRITERS = ("datasets", "gguf", "numpy", "pyarrow", "safetensors", "tokenizers", "torch", "transformers")
READ_ONLY = 0o444

log = logging.getLogger("inferometer")

Make = Callable[..., object]


def _folder() -> Path | None:
    """The shared folder that the environment names, or None. Raises InferometerError where it is none."""
    if not (named := os.environ.get(VARIABLE)):
        return None
    folder = Path(named).absolute()
    if not folder.is_dir():
        raise InferometerError(f"{VARIABLE} names {named}, which is not a folder; make it, or unset {VARIABLE}.")
    return folder


def _is_shared(entry: Mapping[str, Any]) -> bool:
    """Shapes have nothing to prepare, and folders of this machine are linked where they lie."""
    return entry["source"] != "architecture" and not (
        entry["source"] == "local" and Path(entry.get("path", "")).is_dir()
    )


def _key(name: str, entry: Mapping[str, Any], files: Sequence[str], code: str) -> str:
    """Digest of all that decides the content: entry, local files, the code, and the packages that write."""
    parts = [
        name,
        dict(entry),
        [sha256_of(Path(file)) for file in files],
        code,
        [version(writer) for writer in WRITERS],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _locked(entry: Path, operation: int) -> Iterator[None]:
    """Hold the lock of an entry for the block; it ends with the process. Raises InferometerError if it can't be had."""
    path = entry.with_name(f"{entry.name}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(PermissionError):  # another user's, who did this
            os.fchmod(descriptor, 0o666)
        fcntl.flock(descriptor, operation)
    except OSError as error:
        raise InferometerError(
            f"{path} can't be locked ({error.strerror}); let {VARIABLE} name a folder where files can be locked."
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}


def _fault(entry: Path) -> str | None:
    """What is wrong with an entry, or None if each of its files has the digest that was written down for it."""
    try:
        digests = json.loads((entry / DIGESTS).read_bytes())
        found = _files(entry)
        del found[DIGESTS]
        if found.keys() != digests.keys():
            return "it does not hold the files that it should"
        wrong = [name for name, path in found.items() if sha256_of(path) != digests[name]]
    except (OSError, ValueError, AttributeError) as error:
        return f"it can't be read ({type(error).__name__})"
    return f"{', '.join(wrong)} is not what was written" if wrong else None


def _write(entry: Path, names: Sequence[str], make: Make) -> None:
    """Make an entry anew."""
    with whole_folder(entry) as folder:
        make(*(folder / name for name in names))
        found = _files(folder)
        for path in found.values():
            if path.is_symlink():  # into a cache of this user's own
                target = path.resolve()
                path.unlink()
                shutil.copyfile(target, path)
        digests = {name: sha256_of(path) for name, path in found.items()}
        (folder / DIGESTS).write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for path in _files(folder).values():
            path.chmod(READ_ONLY)


def _take(entry: Path, outputs: Sequence[Path]) -> None:
    """Folders get links to the entry's files, which may be large; single files are copied."""
    log.info("taken from the shared folder: %s", entry)
    for output in outputs:
        held = entry / output.name
        if held.is_dir():
            with whole_folder(output) as folder:
                for path in held.iterdir():
                    (folder / path.name).symlink_to(path)
        else:
            with whole_file(output) as partial:
                shutil.copyfile(held, partial)


def prepare(
    name: str, entry: Mapping[str, Any], files: Sequence[str], code: str, outputs: Sequence[Path], make: Make
) -> None:
    """Have `make` write the `outputs` that it is given, or take them from the shared folder, once verified.

    `name` is the entry's name in the configuration, `files` the local files that it is made of, `code` the version of
    the code that makes it. Without a shared folder, or where this user may not write what is missing there, `make`
    writes the outputs themselves. Raises InferometerError as `make` does.
    """
    folder = _folder()
    if folder is None or not _is_shared(entry):
        make(*outputs)
        return
    held = folder / _key(name, entry, files, code)
    if not os.access(folder, os.W_OK):
        if fault := _fault(held):
            log.warning("made for this study alone, for %s may not be written and %s: %s", folder, held.name, fault)
            make(*outputs)
        else:
            _take(held, outputs)
        return
    with _locked(held, fcntl.LOCK_SH):  # so that many take it at once
        if sound := not _fault(held):
            _take(held, outputs)
    if sound:
        return
    with _locked(held, fcntl.LOCK_EX):
        if fault := _fault(held):
            if held.exists():
                log.warning("damaged in the shared folder, so it is made anew: %s: %s", held, fault)
            _write(held, [output.name for output in outputs], make)
            log.info("prepared in the shared folder: %s", held)
        _take(held, outputs)
