"""Tables: what does not fit the declaration is refused; what fits has one form in bytes and comes back."""

import datetime
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferometer.errors import InferometerError
from inferometer.tables import Column, Table, read_table, write_csv, write_table

TABLE = Table(
    path="<model>/things.parquet",
    meaning="Things.",
    columns=(
        Column("layer", "string", "where"),
        Column("index", "int64", "which"),
        Column("first", "bool", "whether the first"),
        Column("range", "float32", "largest value"),
        Column("share", "float64", "share", nullable=True),
        Column("note", "string", "remark", nullable=True),
    ),
    key=("layer", "index", "first"),
)


def _rows(count: int = 3) -> pd.DataFrame:
    index = np.arange(count)
    return pd.DataFrame(
        {
            "layer": [f"layers.{number // 2}.q_proj" for number in index],
            "index": index,
            "first": index % 2 == 0,
            "range": (index / 7).astype(np.float32),
            "share": np.where(index % 3 == 1, np.nan, index / 3),
            "note": [None if number % 2 else f"näher {number}" for number in index],
        }
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"range": None}, r"nulls in \['range'\]"),
        ({"range": math.nan}, r"nulls in \['range'\]"),
        ({"layer": [None, "a", "b"]}, r"nulls in \['layer'\]"),
        ({"index": pd.array([1, None, 3], dtype="Int64")}, r"nulls in \['index'\]"),
        ({"layer": "a", "index": 1, "first": True}, "two rows share one key"),
        ({"layer": ["a", "a", "b"], "index": [1.0, 1.0, 2.0], "first": True}, "two rows share one key"),
        ({"index": ["1", "2", "3"]}, "index holds .*string, not int64"),
        ({"index": [True, False, True]}, "index holds bool, not int64"),
        ({"index": [1.0, 2.5, 3.0]}, "truncated"),
        ({"index": [2**70, 1, 2]}, "too large"),
        ({"index": [2**63, 1, 2]}, "too large|not in range|out of bounds"),
        (
            {"index": [datetime.datetime(2026, 1, day) for day in (1, 2, 3)]},
            "index holds timestamp.*, not int64",
        ),
        ({"first": [1, 0, 2]}, "first holds int64, not bool"),
        ({"first": ["yes", "no", "no"]}, "first holds .*string, not bool"),
        ({"layer": [1, 2, 3]}, "layer holds int64, not string"),
        ({"layer": ["a", 2, "c"]}, "Expected bytes"),
        ({"layer": [b"a", b"b", b"c"]}, "layer holds binary, not string"),
        ({"layer": [["a"], ["b"], ["c"]]}, "layer holds list.*, not string"),
        ({"range": ["1.5", "2", "3"]}, "range holds .*string, not float"),
        ({"share": [True, False, True]}, "share holds bool, not double"),
        ({"share": [2**60 + 1, 1, 2]}, "not in range"),
        ({"note": [1.0, 2.0, 3.0]}, "note holds double, not string"),
    ],
)
def test_what_does_not_fit_the_declaration_is_refused_and_nothing_is_written(
    tmp_path: Path, change: Mapping[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        write_table(TABLE, _rows().assign(**change), tmp_path / "t.parquet")
    assert TABLE.path in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (_rows().drop(columns="range"), "range"),
        (_rows().assign(surplus=1), "surplus"),
        (_rows().rename(columns={"range": "reach"}), "reach"),
        (_rows().rename(columns={"range": 5}), "5"),
        (pd.DataFrame(), "columns"),
    ],
)
def test_missing_and_unknown_columns_are_refused(tmp_path: Path, frame: pd.DataFrame, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        write_table(TABLE, frame, tmp_path / "t.parquet")
    assert "are not the declared" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"index": [0.0, 1.0, 2.0]},
        {"index": pd.Series([0, 1, 2], dtype=object)},
        {"index": pd.Series([0, 1, 2], dtype="Int64")},
        {"index": pd.Series([0, 1, 2], dtype=np.int16)},
        {"range": pd.Series(_rows()["range"], dtype=np.float64)},
        {"first": pd.Series([True, False, True], dtype="boolean")},
        {"layer": pd.Series(_rows()["layer"], dtype=object)},
        {"layer": pd.Categorical(_rows()["layer"], categories=["layers.1.q_proj", "layers.0.q_proj"], ordered=True)},
    ],
)
def test_the_same_values_in_other_types_of_pandas_give_the_same_bytes(
    tmp_path: Path, change: Mapping[str, Any]
) -> None:
    plain, other = tmp_path / "plain.parquet", tmp_path / "other.parquet"
    write_table(TABLE, _rows(), plain)
    write_table(TABLE, _rows().assign(**change), other)
    assert plain.read_bytes() == other.read_bytes()


def test_shuffled_rows_and_columns_and_another_index_give_the_same_bytes(tmp_path: Path) -> None:
    frame = _rows(500)
    shuffled = frame.sample(frac=1, random_state=1)[list(reversed(frame.columns))]
    assert list(shuffled.index) != list(frame.index)
    for name, rows in (("a", frame), ("b", shuffled), ("c", shuffled.reset_index(drop=True))):
        write_table(TABLE, rows, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    assert b"pandas" not in (tmp_path / "a").read_bytes()


def test_another_value_gives_other_bytes(tmp_path: Path) -> None:
    write_table(TABLE, _rows(), tmp_path / "a")
    write_table(TABLE, _rows().assign(range=[0.0, 1 / 7, 3 / 7]), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


FLOAT32 = st.floats(width=32, allow_nan=False)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "layer": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
            "index": st.integers(-(2**63), 2**63 - 1),
            "first": st.booleans(),
            "range": FLOAT32,
            "share": st.none() | st.floats(allow_nan=False),
            "note": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        }
    ),
    min_size=1,
    unique_by=lambda row: (row["layer"], row["index"], row["first"]),
)


@given(ROWS)
def test_rows_come_back_exactly_and_sorted_by_key(rows: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame({column.name: [row[column.name] for row in rows] for column in TABLE.columns})
    frame["share"] = frame["share"].astype(np.float64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        write_table(TABLE, frame, path)
        back = read_table(TABLE, path)
        some = read_table(TABLE, path, ["share", "layer"])
        own = read_table(TABLE, path, ["index"], where={"layer": rows[0]["layer"], "first": True})
    found = [
        {name: None if pd.isna(value) else value for name, value in row.items()} for row in back.to_dict("records")
    ]
    expected = sorted(rows, key=lambda row: (row["layer"].encode(), row["index"], row["first"]))
    assert found == expected
    assert np.signbit(back["range"]).tolist() == [np.signbit(row["range"]) for row in expected]
    pd.testing.assert_frame_equal(some[["layer", "share"]], back[["layer", "share"]])
    assert own["index"].tolist() == back[(back["layer"] == rows[0]["layer"]) & back["first"]]["index"].tolist()


def test_types_come_back_as_declared_also_of_an_empty_table(tmp_path: Path) -> None:
    for name, frame in (("some", _rows()), ("none", _rows().iloc[:0])):
        write_table(TABLE, frame, tmp_path / name)
        back = read_table(TABLE, tmp_path / name)
        assert len(back) == len(frame)
        assert [str(kind) for kind in back.dtypes] == ["str", "int64", "bool", "float32", "float64", "str"]


def _complaint(path: Path, columns: list[str] | None = None) -> str:
    with pytest.raises(InferometerError) as caught:
        read_table(TABLE, path, columns)
    complaint = str(caught.value)
    assert str(path) in complaint
    assert complaint.endswith("delete it and run again.")
    assert "\n" not in complaint
    return complaint


def test_a_file_cut_short_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    write_table(TABLE, _rows(), whole)
    content = whole.read_bytes()
    for length in range(0, len(content), 7):
        cut.write_bytes(content[:length])
        _complaint(cut)


def test_a_file_with_any_byte_damaged_is_refused_by_name_or_reads_the_same(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.parquet", tmp_path / "damaged.parquet"
    write_table(TABLE, _rows(), whole)
    content, expected = whole.read_bytes(), read_table(TABLE, whole)
    refused = 0
    for position in range(len(content)):
        damaged.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            pd.testing.assert_frame_equal(read_table(TABLE, damaged), expected)
        except InferometerError:
            _complaint(damaged)
            refused += 1
    assert refused > len(content) / 2


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n", bytes(1000)])
def test_a_file_that_is_no_parquet_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    _complaint(path)


def test_rows_are_chosen_only_from_pages_that_are_sound(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(TABLE, _rows(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InferometerError, match=r"t\.parquet"):
        read_table(TABLE, path, where={"first": True})


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    _complaint(tmp_path / "absent.parquet")


def _with_type(content: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    return content.set_column(content.column_names.index(name), name, content[name].cast(kind))


FOREIGN: dict[str, Callable[[pa.Table], pa.Table]] = {
    "a column missing": lambda content: content.drop_columns(["share"]),
    "a column too many": lambda content: content.append_column("surplus", content["index"]),
    "a column renamed": lambda content: content.rename_columns({"share": "part"}),
    "a column of another type": lambda content: _with_type(content, "index", pa.string()),
    "a column of another width": lambda content: _with_type(content, "range", pa.float64()),
}


@pytest.mark.parametrize("columns", [None, ["layer"]], ids=["whole", "one column"])
@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_table_of_another_kind_or_version_is_refused_by_name(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], columns: list[str] | None
) -> None:
    path = tmp_path / "t.parquet"
    write_table(TABLE, _rows(), path)
    pq.write_table(change(pq.read_table(path)), path)
    assert f"is not a {TABLE.path} table of this version" in _complaint(path, columns)


def test_csv_holds_the_same_rows(tmp_path: Path) -> None:
    write_table(TABLE, _rows(), tmp_path / "t.parquet")
    write_csv(TABLE, tmp_path / "t.parquet", tmp_path / "t.csv")
    back = pd.read_csv(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(back, read_table(TABLE, tmp_path / "t.parquet"), check_dtype=False)
