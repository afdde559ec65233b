"""Everything that two folders of results differ by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.compare.folder import Folder
from inferometer.compare.paired import paired_difference
from inferometer.compare.rows import Change, Differences, Kind, compare_rows
from inferometer.intervals import CONFIDENCE, Interval
from inferometer.runs import MACHINE_COLUMNS
from inferometer.tables_doc import Declaration, declared_tables

RUNS = "summary/runs.parquet"
SUMMARIES = ("summary/", "capacity/", "provenance/", "machine.parquet")
SOURCES = ("*/sources/model.json", "sources/corpora/*.parquet", "sources/questions/*.parquet", "sources/images/*")


@dataclass(frozen=True)
class Setting:
    """Something that stood otherwise in the two runs; missing where a run lacks it."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side. `said` is the outcome in words."""

    before: str
    after: str
    differences: Differences
    configuration: list[Setting] | None
    machine: list[Setting]
    sources: list[Setting]
    foreign_load: list[tuple[str, int, int]]
    said: list[str]

    def of(self, *kinds: Kind) -> list[Change]:
        """The changes that were judged in one of these ways."""
        return [change for change in self.differences.changes if change.kind in kinds]


@cache
def summaries(root: Path) -> tuple[Declaration, ...]:
    """The declared tables of which a study has one file, sorted and summed up: no raw samples."""
    return tuple(
        declaration
        for declaration in declared_tables(root)
        if declaration.table.path.startswith(SUMMARIES) and "repetition" not in declaration.table.key
    )


def _references(folder: Folder) -> dict[str, str]:
    """The float scheme of each model, which ratios and changes are against."""
    schemes = folder.table("summary/schemes.parquet")
    if schemes is None or not {"model", "scheme", "engine"} <= set(schemes.columns):
        return {}
    floats = schemes[schemes["engine"] == "float"].drop_duplicates("model")
    return dict(zip(floats["model"], floats["scheme"], strict=True))


def _tables(before: Folder, after: Folder, declarations: Sequence[Declaration]) -> Differences:
    found, references = Differences(), _references(before)
    if references != _references(after):
        references = {}
    for declaration in declarations:
        file, name = declaration.table.path, declaration.name
        frames = before.table(file), after.table(file)
        match frames:
            case None, None:
                continue
            case (pd.DataFrame() as first, pd.DataFrame() as second):

                def pairing(quantity: str, row: Mapping[str, Any], name: str = name) -> Interval | None:
                    with_reference = {**row, "reference": references.get(row.get("model", ""))}
                    return paired_difference(before, after, name, quantity, with_reference)

                found.add(compare_rows(name, declaration.table, first, second, pairing))
            case _:
                found.notes.append(f"{name} ({file}) is only in {'B' if frames[0] is None else 'A'}.")
    return found


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Setting]:
    names = dict.fromkeys([*before, *after])
    return [Setting(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def _machine(folder: Folder) -> dict[str, str]:
    """What the measuring jobs ran on, each fact in all the ways that it was found."""
    runs = folder.table(RUNS)
    if runs is None:
        return {}
    shown = [column.name for column in MACHINE_COLUMNS if column.name in runs.columns]
    return {name: ", ".join(sorted(map(str, runs[name].dropna().unique()))) for name in shown}


def _sources(folder: Folder) -> dict[str, str | None]:
    files = sorted(path for pattern in SOURCES for path in folder.path.glob(pattern) if path.is_file())
    return {name: folder.digest(name) for path in files if (name := path.relative_to(folder.path).as_posix())}


def _load(folder: Folder, declarations: Sequence[Declaration]) -> tuple[int, int]:
    """How many samples of all summarized times are contaminated by other work, and how many there are."""
    contaminated = samples = 0
    for declaration in declarations:
        columns = {column.name for column in declaration.table.columns}
        found = folder.table(declaration.table.path) if {"samples", "contaminated"} <= columns else None
        if found is not None and {"samples", "contaminated"} <= set(found.columns):
            contaminated += int(found["contaminated"].sum())
            samples += int(found["samples"].sum())
    return contaminated, samples


def said(differences: Differences) -> list[str]:
    """The outcome in words: what changed beyond its interval, and how many quantities that was judged of."""
    kinds: tuple[Kind, ...] = ("paired", "intervals")
    judged = {kind: sum(change.kind == kind for change in differences.changes) for kind in kinds}
    all_of = {kind: count + differences.within.get(kind, 0) for kind, count in judged.items()}
    changed, total = sum(judged.values()), sum(all_of.values())
    ways = (
        f"{all_of['paired']:,} by the interval of the difference on the same texts or questions, "
        f"{all_of['intervals']:,} by whether both intervals overlap"
    )
    if not total:
        return ["No quantity with an interval is in both runs, so nothing can be said of what changed."]
    outcome = (
        "Nothing changed beyond its interval"
        if not changed
        else f"{changed:,} of {total:,} changed beyond their interval"
    )
    sentences = [f"{outcome}: {total:,} quantities have one, judged {ways}."]
    if changed:
        chance = round((1 - CONFIDENCE) * all_of["paired"])
        sentences.append(f"By chance alone about {chance} of those judged by pairs would seem to change.")
    plain = sum(change.kind == "plain" for change in differences.changes)
    same = differences.within.get("plain", 0)
    sentences.append(f"Of {plain + same:,} entries without an interval {plain:,} differ.")
    return sentences


def compare(before: Path, after: Path, root: Path) -> Comparison:
    """Two folders of results, `before` and `after`; `root` is the workflow's folder, whose tables are looked for.

    Raises InferometerError where either is no folder of results or holds a damaged table.
    """
    first, second = Folder(before), Folder(after)
    declarations = summaries(root)
    found = _tables(first, second, declarations)
    own, other = first.configuration, second.configuration
    return Comparison(
        str(before),
        str(after),
        found,
        None if own is None or other is None else _settings(own, other),
        _settings(_machine(first), _machine(second)),
        _settings(_sources(first), _sources(second)),
        [(label, *_load(folder, declarations)) for label, folder in (("A", first), ("B", second))],
        said(found),
    )
