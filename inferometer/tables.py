"""Tidy Parquet tables with a declared schema, written so that equal content gives equal bytes."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from inferometer.errors import InferometerError
from inferometer.files import whole_file


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type as text (`float64`, `int64`, `string`, `bool`) and one line of meaning with unit."""

    name: str
    type: str
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """A declared table: where its files lie under `results/`, its columns, and the columns that identify a row."""

    path: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @functools.cached_property
    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema that files of this table have."""
        return pa.schema(
            [pa.field(column.name, pa.type_for_alias(column.type), column.nullable) for column in self.columns]
        )


def write_table(table: Table, frame: pd.DataFrame, path: Path) -> None:
    """Validate `frame` against the declaration, sort it by the table's key and write it whole.

    Raises ValueError on missing or unknown columns, a type that does not fit without loss, a null where none may
    be, or two rows with one key: each is a fault of the program, not of the user.
    """
    names = [column.name for column in table.columns]
    if set(frame.columns) != set(names):
        raise ValueError(f"{table.path}: columns {sorted(frame.columns)} are not the declared {sorted(names)}")
    if frame.duplicated(list(table.key)).any():
        raise ValueError(f"{table.path}: two rows share one key {table.key}")
    frame = frame[names].sort_values(list(table.key), kind="stable", ignore_index=True)
    nulls = [column.name for column in table.columns if not column.nullable and frame[column.name].isna().any()]
    if nulls:
        raise ValueError(f"{table.path}: nulls in {nulls}")
    content = pa.Table.from_pandas(frame, schema=table.arrow_schema, preserve_index=False)
    with whole_file(path) as partial:
        pq.write_table(content.replace_schema_metadata(None), partial, compression="zstd")


def read_table(table: Table, path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a file of this table, or some of its columns, as a data frame.

    Raises InferometerError naming the file when it is missing, is not Parquet or has other columns.
    """
    try:
        content = pq.read_table(path, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise InferometerError(f"cannot read the table {path}: {error}; delete it and run again.") from error
    declared = [column.name for column in table.columns if columns is None or column.name in columns]
    if set(content.column_names) != set(declared):
        raise InferometerError(
            f"{path} is not a {table.path} table of this version: it has {', '.join(content.column_names)}; "
            "delete it and run again."
        )
    return content.to_pandas()
