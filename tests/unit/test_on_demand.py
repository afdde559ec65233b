"""Tables on demand: read when asked for, two in memory, and otherwise a mapping."""

import weakref

import pandas as pd
import pytest

from inferometer.on_demand import KEPT, OnDemand


def test_going_through_all_holds_no_more_than_two() -> None:
    made: list[weakref.ref[pd.DataFrame]] = []

    def read(number: int) -> pd.DataFrame:
        table = pd.DataFrame({"number": [number]})
        made.append(weakref.ref(table))
        return table

    tables = OnDemand(range(10), read)
    assert [int(table["number"][0]) for table in tables.values()] == list(range(10))
    del read
    assert len(made) == 10
    assert sum(table() is not None for table in made) <= KEPT + 1  # and the one that the loop had last


def test_a_table_and_the_one_that_all_are_compared_with_are_read_once() -> None:
    read: list[str] = []
    tables = OnDemand(["reference", "first", "second"], lambda key: read.append(key) or key.upper())  # type: ignore[func-returns-value]
    assert [(tables[key], tables["reference"]) for key in tables] == [
        ("REFERENCE", "REFERENCE"),
        ("FIRST", "REFERENCE"),
        ("SECOND", "REFERENCE"),
    ]
    assert read == ["reference", "first", "second"]


def test_other_keys_are_refused_and_order_and_length_are_those_of_the_keys() -> None:
    tables = OnDemand("ba", str.upper)
    assert dict(tables) == {"b": "B", "a": "A"}
    assert list(tables) == ["b", "a"]
    assert len(tables) == 2
    with pytest.raises(KeyError, match="c"):
        tables["c"]
