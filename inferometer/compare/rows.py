"""Two files of one declared table, row by row and quantity by quantity."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from inferometer.intervals import Interval
from inferometer.tables import Column, Table

RESOLUTION = 1e-6  # relative: what float32 sums in another order may differ by
ENDS = (("_low", "_high"), ("_q25", "_q75"))
BOUND = re.compile(r"_(low|high|q25|q75|p95|mean|std)$")
OF_TIME = re.compile(r"(^|_)(ms|s|per_s|speedup)(_|$)|^(peak|memory|extra)_bytes$|^samples$|^contaminated")
TIMED = {  # tables that are of times and memory as a whole
    "MACHINE",
    "DECODER_SPEED",
    "PROFILE",
    "KNEES",
    "SLOPES",
    "CACHE_SPEED",
    "KERNEL_SPEED",
    "CACHE_LENGTHS",
}
NEVER_TIMED = {"RIDGES"}  # of data sheets

Kind = Literal["paired", "intervals", "plain", "timing"]


@dataclass(frozen=True)
class Change:
    """One quantity of one row, before and after; `difference` where both were measured on the same units.

    `kind` says how it was judged: "paired" by the interval of that difference, "intervals" by whether both intervals
    overlap, "timing" by the same of a time or memory, "plain" by equality.
    """

    table: str
    row: str
    quantity: str
    before: Any
    after: Any
    difference: Interval | None
    kind: Kind
    is_factor: bool = False


@dataclass
class Differences:
    """What is found in the files of one table, or of several added together."""

    changes: list[Change] = field(default_factory=list)
    within: dict[Kind, int] = field(default_factory=dict)
    only_before: list[tuple[str, str]] = field(default_factory=list)
    only_after: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unlisted: int = 0

    def add(self, other: "Differences") -> None:
        """Add what was found in another table."""
        self.changes += other.changes
        self.only_before += other.only_before
        self.only_after += other.only_after
        self.notes += other.notes
        self.unlisted += other.unlisted
        for kind, count in other.within.items():
            self.within[kind] = self.within.get(kind, 0) + count


def is_timing(table: str, column: str) -> bool:
    """Whether a column holds times or memory, which no two runs have alike."""
    return table not in NEVER_TIMED and (table in TIMED or OF_TIME.search(column) is not None)


def _missing(value: Any) -> bool:
    return bool(pd.isna(value))


def _same(before: Any, after: Any) -> bool:
    """Equal, both missing, or numbers that rounding alone may have made different."""
    if _missing(before) or _missing(after):
        return _missing(before) and _missing(after)
    if isinstance(before, float) and isinstance(after, float):
        return before == after or abs(after - before) <= RESOLUTION * max(abs(before), abs(after))
    return bool(before == after)


def _bounds(row: Mapping[str, Any], name: str) -> Interval | None:
    """A quantity with the columns that bound it, if it has such and they are known."""
    for low, high in ENDS:
        if f"{name}{low}" in row and f"{name}{high}" in row:
            values = [row[name], row[f"{name}{low}"], row[f"{name}{high}"]]
            if not any(map(_missing, values)):
                return Interval(*map(float, values))
    return None


def _overlap(one: Interval, other: Interval) -> bool:
    return one.low <= other.high and other.low <= one.high


Pairing = Callable[[str, Mapping[str, Any]], Interval | None]
FACTOR = ("perplexity", "ratio")


def _judge(
    table: str, row: str, name: str, rows: tuple[Mapping[str, Any], ...], pairing: Pairing
) -> tuple[Change, bool]:
    """A quantity of a row with whether it changed by more than its interval; without one, whether it differs at all."""
    (before, after), timing = rows, is_timing(table, name)
    own, other = _bounds(before, name), _bounds(after, name)
    if own is None or other is None:
        change = Change(table, row, name, before[name], after[name], None, "timing" if timing else "plain")
        return change, not _same(before[name], after[name])
    difference = None if timing else pairing(name, before)
    if difference is None:
        kind: Kind = "timing" if timing else "intervals"
        return Change(table, row, name, own, other, None, kind), not _overlap(own, other)
    factor = name in FACTOR
    none = 1.0 if factor else 0.0
    scale = 1.0 if factor else abs(own.estimate)
    changed = not difference.low <= none <= difference.high and abs(difference.estimate - none) > RESOLUTION * scale
    return Change(table, row, name, own, other, difference, "paired", factor), changed


def compare_rows(name: str, table: Table, before: pd.DataFrame, after: pd.DataFrame, pairing: Pairing) -> Differences:
    """What differs between two files of one table, joined by its key.

    `pairing` gives the interval of a quantity's difference where the raw tables allow it. Columns that either file
    lacks, has besides or holds as something else are noted; a file without the key can't be compared.
    """
    found = Differences(notes=_schema_notes(name, table, before, after))
    if not set(table.key) <= set(before.columns) & set(after.columns):
        found.notes.append(f"{name}: a column of its key is missing, so its rows can't be told apart.")
        return found
    rows = [_by_key(table, frame) for frame in (before, after)]
    found.only_before = [(name, key) for key in rows[0] if key not in rows[1]]
    found.only_after = [(name, key) for key in rows[1] if key not in rows[0]]
    shared = [
        column.name
        for column in table.columns
        if all(_fits(column, frame.get(column.name)) for frame in (before, after))
    ]
    quantities = [
        column
        for column in shared
        if column not in table.key and not (BOUND.search(column) and BOUND.sub("", column) in shared)
    ]
    for key in (key for key in rows[0] if key in rows[1]):
        for quantity in quantities:
            change, changed = _judge(name, key, quantity, (rows[0][key], rows[1][key]), pairing)
            if not changed:
                found.within[change.kind] = found.within.get(change.kind, 0) + 1
            elif change.kind == "timing" and not isinstance(change.before, Interval):
                found.unlisted += 1
            else:
                found.changes.append(change)
    return found


def _by_key(table: Table, frame: pd.DataFrame) -> dict[str, Mapping[str, Any]]:
    """The rows by their key in words, in the order of the file."""
    rows = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    return {", ".join(f"{name} {row[name]}" for name in table.key): row for row in rows}


def _fits(column: Column, values: pd.Series | None) -> bool:
    """Whether a column is there and holds what is declared, nulls aside."""
    if values is None:
        return False
    known = values.dropna()
    kinds: tuple[type, ...] = {"string": (str,), "bool": (bool,)}.get(column.type, (int, float))
    return all(isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)) for value in known.tolist())


def _schema_notes(name: str, table: Table, before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    declared = {column.name for column in table.columns}
    notes = []
    for label, frame in (("A", before), ("B", after)):
        own = set(map(str, frame.columns))
        if declared - own:
            notes.append(f"{name} of {label} lacks the columns {', '.join(sorted(declared - own))}.")
        if own - declared:
            notes.append(f"{name} of {label} has columns of another version: {', '.join(sorted(own - declared))}.")
        foreign = [
            column.name for column in table.columns if column.name in own and not _fits(column, frame[column.name])
        ]
        if foreign:
            notes.append(f"{name} of {label} holds something else in {', '.join(foreign)}.")
    return notes
