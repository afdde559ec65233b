"""Tidy Parquet tables with a declared schema, written so that equal content gives equal bytes."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from inferometer.errors import InferometerError
from inferometer.files import whole_file


@dataclass(frozen=True)
class Column:
    """One column: its name, its Arrow type, and one line of meaning with unit."""

    name: str
    type: Literal["bool", "int64", "float32", "float64", "string"]
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """A declared table: where its files lie under `results/`, its columns, and those that identify a row."""

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


def _family(kind: pa.DataType) -> str:
    """Values convert within a family only: left to itself, Arrow reads "1" and a date as integers."""
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return "string" if pa.types.is_large_string(kind) else str(kind)


def _converted(table: Table, frame: pd.DataFrame) -> pa.Table:
    """The declared columns of `frame` in their declared types."""
    try:
        for field, found in zip(table.arrow_schema, pa.Schema.from_pandas(frame, preserve_index=False), strict=True):
            if not pa.types.is_null(found.type) and _family(found.type) != _family(field.type):
                raise ValueError(f"{table.path}: column {field.name} holds {found.type}, not {field.type}")
        return pa.Table.from_pandas(frame, schema=table.arrow_schema, preserve_index=False)
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(f"{table.path}: {error}") from error


def write_table(table: Table, frame: pd.DataFrame, path: Path) -> None:
    """Validate `frame` against the declaration, sort it by the table's key and write it whole.

    Raises ValueError on missing or unknown columns, a type that does not fit (only float64 is rounded to
    float32), a null where none may be, or two rows with one key: faults of the program, not of the user.
    """
    names = [column.name for column in table.columns]
    if set(frame.columns) != set(names):
        found = sorted(map(str, frame.columns))
        raise ValueError(f"{table.path}: columns {found} are not the declared {sorted(names)}")
    nulls = [column.name for column in table.columns if not column.nullable and frame[column.name].isna().any()]
    if nulls:
        raise ValueError(f"{table.path}: nulls in {nulls}")
    content = _converted(table, frame[names]).replace_schema_metadata(None)
    if content.group_by(list(table.key)).aggregate([]).num_rows < content.num_rows:
        raise ValueError(f"{table.path}: two rows share one key {table.key}")
    content = content.sort_by([(name, "ascending") for name in table.key])
    with whole_file(path) as partial:
        pq.write_table(content, partial, compression="zstd", write_page_checksum=True)


def read_table(
    table: Table, path: Path, columns: Sequence[str] | None = None, where: Mapping[str, object] | None = None
) -> pd.DataFrame:
    """Read a file of this table as a data frame, or some of its columns, or the rows `where` columns have a value.

    Raises InferometerError naming the file when it is missing, damaged, not Parquet, or has other columns.
    """
    try:
        found = pq.read_schema(path)
        if {(field.name, field.type) for field in found} != {(field.name, field.type) for field in table.arrow_schema}:
            has = ", ".join(f"{field.name} ({field.type})" for field in found)
            raise InferometerError(
                f"{path} is not a {table.path} table of this version: it has {has}; delete it and run again."
            )
        names = None if columns is None else list(columns)
        filters = [(name, "==", value) for name, value in where.items()] if where else None
        rows = pq.read_table(path, columns=names, filters=filters, page_checksum_verification=True)
        content: pd.DataFrame = rows.to_pandas()
        return content
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a damaged text
        reason = str(error).splitlines()[0]
        raise InferometerError(f"cannot read the table {path}: {reason}; delete it and run again.") from error


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table that was read, as dictionaries, with None for null and whole numbers as such."""
    rows = frame.convert_dtypes().astype(object).to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


def write_csv(table: Table, source: Path, path: Path) -> None:
    """Copy a table's file as CSV, for readers and tools without Parquet."""
    with whole_file(path) as partial:
        read_table(table, source).to_csv(partial, index=False)
