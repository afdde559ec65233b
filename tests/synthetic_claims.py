"""A few claims about the made-up study, with one of every verdict and a statement that no page may run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from inferometer.claims.evidence import Evidence
from inferometer.claims.judge import judge
from inferometer.claims.ledger import Claim, read_claims
from inferometer.claims.tables import CLAIMS
from inferometer.tables import write_table

RATIO = "SELECT ratio AS measured, ratio_low AS low, ratio_high AS high FROM summary.schemes WHERE model = $model"
ACCURACY = "SELECT accuracy AS measured, accuracy_low AS low, accuracy_high AS high FROM summary.schemes"
HOSTILE = "\"><script>document.title = 'run'</script> \u202ereversed 'quotes' & <b>bold</b>"


def entry(name: str, query: str, rule: Mapping[str, Any], **own: Any) -> dict[str, Any]:
    """One entry of a ledger; `own` sets keys of its own."""
    return {
        "id": name,
        "study": "S0",
        "source": "a study, section 1",
        "chapter": "evaluation",
        "statement": f"{name} is so.",
        "kind": "relation",
        "measures": "What is measured, with a 95 % interval.",
        "query": query,
        "rule": dict(rule),
        **own,
    }


ENTRIES = [
    entry("smoothed", f"{RATIO} AND scheme = 'w8a8-smooth'", {"at_most": 1.5}, reported=1.02),
    entry("collapsed", f"{RATIO} AND scheme = 'w4a4'", {"less_than": 1.1}, reported=[1.0, 1.1], unit="times"),
    entry("accurate", f"{ACCURACY} WHERE model = $model AND scheme = 'fp'", {"at_least": 0.7}),
    entry("elsewhere", f"{RATIO} AND scheme = 'fp'", {"equals": 1, "within": 0.1}, applies={"device": "cuda"}),
    entry("broken", "SELECT nothing AS measured FROM summary.schemes", {"at_least": 1}),
    entry(
        "hostile",
        "SELECT 2 AS measured -- <script>alert(1)</script>",
        {"equals": 2, "within": 0},
        chapter="capacity",
        statement=HOSTILE,
        source=HOSTILE,
        kind="theory",
    ),
]


def read(entries: list[dict[str, Any]], folder: Path) -> list[Claim]:
    """Entries as claims, by way of a file in the folder."""
    file = folder / "claims.yaml"
    file.write_text(yaml.safe_dump(entries, allow_unicode=True), encoding="utf-8")
    return read_claims([file])


def write(model: str, results: Path) -> None:
    """The table CLAIMS of the entries for the study in the folder `results`."""
    claims = read(ENTRIES, results)
    write_table(
        CLAIMS, judge(claims, Evidence(results, results.rglob("*.parquet")), [model]), results / "claims.parquet"
    )
