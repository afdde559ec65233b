"""Corpora out of local files: what comes back is what stands in the file, or a sentence about it."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import InferometerError
from inferometer.sources.corpora import fetch_corpus
from inferometer.sources.tables import CORPUS
from inferometer.tables import read_table, write_table

TEXTS = ["first\ntext", "", "zweiter Text: äöü …", " third "]


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files during a test, so that a test can see what is left in it."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def _entry(path: Path, form: str, text_key: str | None = "text", **more: Any) -> dict[str, Any]:
    key = {} if form == "txt" or text_key is None else {"text_key": text_key}
    return {"source": "local", "path": str(path), "format": form, **key, **more}


def _refusal(entry: dict[str, Any]) -> str:
    with pytest.raises(InferometerError) as caught:
        fetch_corpus("small", entry)
    sentence = str(caught.value)
    assert "corpus 'small'" in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def _write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _write_parquet(path: Path, values: list[Any]) -> Path:
    pd.DataFrame({"text": values, "other": range(len(values))}).to_parquet(path)
    return path


def test_a_txt_file_is_one_text_just_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes("Zeile eins\r\n\r\nZeile zwei …\n".encode())
    assert fetch_corpus("small", _entry(path, "txt"))["text"].tolist() == ["Zeile eins\r\n\r\nZeile zwei …\n"]


def test_jsonl_gives_one_text_a_line_in_the_order_of_the_file(tmp_path: Path, scratch: Path) -> None:
    path = _write_jsonl(tmp_path / "lines.jsonl", [{"text": text, "other": 1} for text in TEXTS])
    frame = fetch_corpus("small", _entry(path, "jsonl"))
    assert frame["text"].tolist() == TEXTS
    assert frame["text_index"].tolist() == [0, 1, 2, 3]
    assert list(scratch.iterdir()) == []


def test_parquet_gives_one_text_a_row_in_the_order_of_the_file(tmp_path: Path, scratch: Path) -> None:
    path = _write_parquet(tmp_path / "rows.parquet", TEXTS)
    frame = fetch_corpus("small", _entry(path, "parquet"))
    assert frame["text"].tolist() == TEXTS
    assert list(scratch.iterdir()) == []


def test_a_key_that_is_a_number_in_text_is_found(tmp_path: Path) -> None:
    path = _write_jsonl(tmp_path / "lines.jsonl", [{"0": "a", "1": "b"}])
    assert fetch_corpus("small", _entry(path, "jsonl", "0"))["text"].tolist() == ["a"]


@pytest.mark.parametrize("name", ["a [1].jsonl", "a*.jsonl", "a?.jsonl", "no-ending"])
def test_a_file_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    _write_jsonl(tmp_path / "a1.jsonl", [{"text": "another file"}])
    path = _write_jsonl(tmp_path / name, [{"text": "this file"}])
    assert fetch_corpus("small", _entry(path, "jsonl"))["text"].tolist() == ["this file"]


def test_a_relative_path_starts_at_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_jsonl(tmp_path / "lines.jsonl", [{"text": "here"}])
    monkeypatch.chdir(tmp_path)
    assert fetch_corpus("small", _entry(Path("lines.jsonl"), "jsonl"))["text"].tolist() == ["here"]


@settings(max_examples=15)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6),
    form=st.sampled_from(["jsonl", "parquet"]),
)
def test_texts_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], form: str
) -> None:
    texts = ["some text", *texts]
    path = tmp_path_factory.mktemp("texts") / f"texts.{form}"
    if form == "jsonl":
        _write_jsonl(path, [{"text": text} for text in texts])
    else:
        _write_parquet(path, texts)
    assert fetch_corpus("small", _entry(path, form))["text"].tolist() == texts


def test_a_corpus_is_a_valid_table_and_its_bytes_are_stable(tmp_path: Path) -> None:
    entry = _entry(_write_jsonl(tmp_path / "lines.jsonl", [{"text": text} for text in TEXTS]), "jsonl")
    for copy in ("one.parquet", "two.parquet"):
        write_table(CORPUS, fetch_corpus("small", entry), tmp_path / copy)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert read_table(CORPUS, tmp_path / "one.parquet")["text"].tolist() == TEXTS


def test_a_pinned_file_is_read_and_any_other_content_is_refused_unread(tmp_path: Path) -> None:
    path = _write_jsonl(tmp_path / "lines.jsonl", [{"text": "a"}])
    pinned = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(fetch_corpus("small", _entry(path, "jsonl", file_sha256=pinned))) == 1
    path.write_text("not even JSON")
    sentence = _refusal(_entry(path, "jsonl", file_sha256=pinned))
    assert "lines.jsonl of corpus 'small' does not match its pinned hash" in sentence
    assert pinned in sentence


def test_a_missing_file_is_refused_naming_the_key(tmp_path: Path) -> None:
    sentence = _refusal(_entry(tmp_path / "absent.txt", "txt"))
    assert str(tmp_path / "absent.txt") in sentence
    assert "`corpora.small.path`" in sentence


def test_a_folder_is_refused_naming_the_key(tmp_path: Path) -> None:
    assert "`corpora.small.path`" in _refusal(_entry(tmp_path, "txt"))


@pytest.mark.parametrize(
    ("form", "write"),
    [
        ("txt", lambda path: path.write_bytes(b"")),
        ("txt", lambda path: path.write_bytes(b" \n\n\t")),
        ("jsonl", lambda path: path.write_bytes(b"")),
        ("jsonl", lambda path: path.write_bytes(b"\n \n")),
        ("jsonl", lambda path: _write_jsonl(path, [{"text": ""}, {"text": " \n"}])),
        ("parquet", lambda path: _write_parquet(path, [])),
        ("parquet", lambda path: _write_parquet(path, ["", " "])),
    ],
)
def test_an_empty_corpus_is_refused(tmp_path: Path, form: str, write: Callable[[Path], object]) -> None:
    path = tmp_path / "empty"
    write(path)
    assert "corpus 'small' is empty: empty holds no text" in _refusal(_entry(path, form))


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_wrong_text_key_is_refused_with_the_columns_there_are(tmp_path: Path, form: str) -> None:
    path = tmp_path / "file"
    if form == "jsonl":
        _write_jsonl(path, [{"text": "a", "other": 1}])
    else:
        _write_parquet(path, ["a"])
    sentence = _refusal(_entry(path, form, "content"))
    assert "no column 'content'" in sentence
    assert "set `text_key` to one of text, other" in sentence


@pytest.mark.parametrize(
    "content",
    [
        b"plain words",
        b'{"text": "a"}\n{"text": "b\n',
        b'{"text": "a"}\n"b"\n',
        b'{"text": "a"}\n{"text": "b"',
        b'{"text": "\xff\xfe"}\n',
    ],
    ids=["no JSON", "open string", "not an object", "cut short", "not UTF-8"],
)
def test_malformed_jsonl_is_refused(tmp_path: Path, scratch: Path, content: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)
    sentence = _refusal(_entry(path, "jsonl"))
    assert "can't be read as jsonl" in sentence
    assert "lines.jsonl" in sentence
    assert list(scratch.iterdir()) == []


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = _write_parquet(tmp_path / "rows.parquet", TEXTS)
    path.write_bytes(path.read_bytes()[:-20])
    assert "can't be read as parquet" in _refusal(_entry(path, "parquet"))


def test_a_txt_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("Äpfel".encode("latin-1"))
    assert "can't be read as txt" in _refusal(_entry(path, "txt"))


@pytest.mark.parametrize(("values", "row"), [([1, 2], 0), (["a", 2], 1), (["a", "b", None], 2), (["a", {"b": "c"}], 1)])
def test_values_that_are_not_text_are_refused_with_their_row(tmp_path: Path, values: list[Any], row: int) -> None:
    path = _write_jsonl(tmp_path / "lines.jsonl", [{"text": value} for value in values])
    sentence = _refusal(_entry(path, "jsonl"))
    assert "values in column 'text' that are not text" in sentence
    assert f"the first in row {row}" in sentence
    assert "`text_key`" in sentence
