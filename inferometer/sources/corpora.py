"""Corpora: one text per row, from plain text, JSON lines or Parquet, wherever the file came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from inferometer.errors import InferometerError
from inferometer.sources.reasons import reason_of
from inferometer.sources.rows import rows_of
from inferometer.sources.single_file import single_file

BUILDERS = {"jsonl": "json", "parquet": "parquet"}


def _has_no_rows(path: Path, form: str) -> bool:
    if form == "parquet":
        return bool(pq.read_metadata(path).num_rows == 0)
    with path.open("rb") as lines:
        return not any(line.strip() for line in lines)


def _values(path: Path, form: str, text_key: str | None, what: str) -> list[Any]:
    if form == "txt":
        return [path.read_bytes().decode("utf-8")]
    if _has_no_rows(path, form):
        return []
    with rows_of(path, BUILDERS[form]) as data:
        if text_key not in data.column_names:
            raise InferometerError(
                f"{what} has no column {text_key!r}; set `text_key` to one of {', '.join(data.column_names)}."
            )
        return list(data[text_key])


def read_texts(path: Path, form: str, text_key: str | None, what: str) -> pd.DataFrame:
    """The texts of a local file as a CORPUS table: `form` is txt (the file is one text), jsonl or parquet.

    Raises InferometerError, naming the corpus by `what`, when the file can't be read so or holds no text.
    """
    try:
        values = _values(path, form, text_key, what)
    except InferometerError:
        raise
    except Exception as error:  # datasets raises whatever its parsers raise
        raise InferometerError(
            f"{what} can't be read as {form} ({reason_of(error)}); mend {path.name}, or set `format` right."
        ) from error
    other = [row for row, value in enumerate(values) if not isinstance(value, str)]
    if other:
        raise InferometerError(
            f"{what} has values in column {text_key!r} that are not text, the first in row {other[0]}; "
            "set `text_key` to a column of texts, or leave such rows out."
        )
    if not any(text.strip() for text in values):
        raise InferometerError(f"{what} is empty: {path.name} holds no text; choose another file.")
    return pd.DataFrame({"text_index": range(len(values)), "text": values})


def fetch_corpus(name: str, entry: Mapping[str, Any]) -> pd.DataFrame:
    """A corpus as configured, verified and read into a CORPUS table.

    Raises InferometerError naming the corpus.
    """
    what = f"corpus {name!r}"
    with single_file(entry, what, f"corpora.{name}") as path:
        return read_texts(path, entry["format"], entry.get("text_key"), what)
