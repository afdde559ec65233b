"""One folder of results, read whatever version of the program wrote it."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from inferometer.bounded_yaml import read_yaml
from inferometer.errors import InferometerError
from inferometer.files import sha256_of
from inferometer.tables import Table

SUMMARY = "summary"


@dataclass(frozen=True)
class Folder:
    """A folder of results. Raises InferometerError unless it holds a summary."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise InferometerError(f"{self.path} is not a folder; name the folder of results of a finished study.")
        if not any((self.path / SUMMARY).glob("*.parquet")):
            raise InferometerError(
                f"{self.path} holds no table in {SUMMARY}/; name the folder of results of a finished study."
            )

    def table(self, file: str) -> pd.DataFrame | None:
        """The rows of a file with whatever columns it has; nothing where it is missing.

        Raises InferometerError naming a file that is damaged or not Parquet.
        """
        path = self.path / file
        if not path.exists():
            return None
        try:
            content: pd.DataFrame = pq.read_table(path, page_checksum_verification=True).to_pandas()
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise InferometerError(f"cannot read the table {path}: {reason}; make it again, or delete it.") from error
        return content

    def of_version(self, table: Table, file: str) -> pd.DataFrame | None:
        """The rows of a file that has the columns of this version's declaration; nothing of any other."""
        found = self.table(file)
        return found if found is not None and set(found.columns) == {column.name for column in table.columns} else None

    def digest(self, file: str) -> str | None:
        """The SHA-256 of a file; nothing where it is missing."""
        path = self.path / file
        return sha256_of(path) if path.is_file() else None

    @functools.cached_property
    def configuration(self) -> dict[str, Any] | None:
        """The configuration that made the results, by dotted key; nothing where it was not kept.

        Raises InferometerError naming the file where it is not a configuration.
        """
        path = self.path / "provenance/configuration.yaml"
        if not path.exists():
            return None
        content = read_yaml(path, "the configuration")
        if not isinstance(content, dict):
            raise InferometerError(f"{path} is not a configuration; draw the page of that study again.")
        return _leaves(content)


def _leaves(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted keys; an empty mapping is a leaf."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= _leaves(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return found
