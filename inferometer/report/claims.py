"""The claims on the page: what became of each, in a table and in a sentence."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferometer.claims.tables import CLAIMS
from inferometer.report.formats import enumerated, interval, number
from inferometer.report.reading import read_table
from inferometer.tables import records

MARKS = {  # in the order in which verdicts are counted
    "supported": "✓",
    "contradicted": "✗",
    "inconclusive": "≈",
    "not testable here": "–",
    "failed": "!",
}
DIGITS = 4


@dataclass(frozen=True)
class Judged:
    """One row of the table: a claim as it was judged for one model, or for none in particular.

    `anchor` ends the row's address; that of a claim's first model is the claim's own.
    """

    anchor: str
    claim: str
    model: str
    study: str
    source: str
    chapter: str
    statement: str
    kind: str
    reported: str
    measured: str
    bounds: str
    unit: str
    measures: str
    rule: str
    verdict: str
    mark: str
    reason: str
    device: str | None
    query: str

    @property
    def verdict_class(self) -> str:
        """The verdict as the name of a class of the style sheet."""
        return self.verdict.replace(" ", "-")


@dataclass(frozen=True)
class Claims:
    """All that the section shows. `verdicts` and `chapters` hold how many rows each has, in the order of the page."""

    rows: list[Judged]
    models: list[str]
    verdicts: dict[str, int]
    chapters: dict[str, int]
    said: list[str]


def _plain(value: float) -> str:
    """A number without zeros that say nothing: what a source prints as 57 is not 57.00."""
    text = number(value, DIGITS)
    return text.rstrip("0").rstrip(".") if "." in text and "·" not in text else text


def _reported(row: dict[str, Any]) -> str:
    if row["reported"] is None:
        return "in words"
    low = _plain(row["reported"])
    return low if row["reported_to"] is None else f"{low} to {_plain(row['reported_to'])}"


def _judged(row: dict[str, Any], anchor: str) -> Judged:
    known = row["low"] is not None and row["high"] is not None
    copied = ("claim", "model", "study", "source", "chapter", "statement", "kind", "unit", "measures", "rule")
    return Judged(
        anchor=anchor,
        reported=_reported(row),
        measured="" if row["measured"] is None else _plain(row["measured"]),
        bounds=interval(row["low"], row["high"], DIGITS) if known else "",
        mark=MARKS[row["verdict"]],
        **{name: row[name] for name in (*copied, "verdict", "reason", "device", "query")},
    )


def _counted(counts: dict[str, int]) -> str:
    return enumerated(f"{count} {verdict}" for verdict, count in counts.items() if count)


def said_of(rows: Sequence[Judged], verdicts: dict[str, int]) -> list[str]:
    """How many claims there are, and what became of them."""
    if not rows:
        return ["The ledger holds no claims, so nothing was judged."]
    claims, models = len({row.claim for row in rows}), len({row.model for row in rows if row.model})
    what = f"{claims} claim{'' if claims == 1 else 's'}"
    times = f" in {len(rows)} rows, one for each of {models} models where that matters" if models > 1 else ""
    said = [f"{what}{times}: {_counted(verdicts)}."]
    if not verdicts["supported"] + verdicts["contradicted"] + verdicts["inconclusive"]:
        said.append("None of them could be tested here; each row says why.")
    theory = [row for row in rows if row.kind == "theory"]
    if theory:
        against = sum(row.verdict == "contradicted" for row in theory)
        said.append(
            f"{len(theory)} of the rows follow from model configurations alone, whatever the machine; of these "
            f"{against} {'is' if against == 1 else 'are'} contradicted."
        )
    return said


def claims(results: Path) -> Claims:
    """The section's data from the table CLAIMS in the folder `results`."""
    rows: list[Judged] = []
    seen: set[str] = set()
    table = read_table(CLAIMS, results / "claims.parquet")
    for row in records(table.sort_values(["place", "model"], kind="stable")):
        own = f"claim-{row['claim']}"
        anchor = f"{own}--{row['model']}" if row["claim"] in seen else own
        seen.add(row["claim"])
        rows.append(_judged(row, anchor))
    found, chapters = Counter(row.verdict for row in rows), Counter(row.chapter for row in rows)
    verdicts = {verdict: found[verdict] for verdict in MARKS}
    models = list(dict.fromkeys(row.model for row in rows if row.model))
    return Claims(rows, models, verdicts, dict(chapters), said_of(rows, verdicts))
