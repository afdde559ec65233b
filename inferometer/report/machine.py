"""What the section `machine` shows: the machine, versions, the code's revision, and where the time went."""

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.provenance.records import by_rule, read_records
from inferometer.provenance.revision import Revision, revision
from inferometer.report.formats import percent, seconds

STARTED = "logs/started"  # touched when a call of Snakemake begins to run jobs


@dataclass(frozen=True)
class MachineSection:
    """The section's data: `rules` are the records by rule, `said` what they tell in words."""

    versions: list[tuple[str, str]]
    revision: Revision | None
    rules: pd.DataFrame
    said: list[str]
    start_known: bool


def _versions() -> list[tuple[str, str]]:
    """Python and every package that the project pins, as installed where the page is drawn."""
    pinned = [re.split(r"[^\w.-]", line)[0] for line in requires("inferometer") or [] if "extra ==" not in line]
    return [("Python", platform.python_version()), *((name, version(name)) for name in sorted(pinned))]


def said_of_time(rules: pd.DataFrame, *, start_known: bool) -> list[str]:
    """Where the time went, and what was kept from earlier calls of the workflow, in words."""
    if rules.empty:
        return ["No records of time were found beside the results."]
    jobs, total = int(rules["jobs"].sum()), float(rules["wall_s"].sum())
    shares = zip(rules["rule"].head(3), rules["wall_s"].head(3) / total, strict=True)
    longest = [f"{rule} ({percent(float(share))})" for rule, share in shares]
    said = [f"{jobs} jobs took {seconds(total)} of wall time together, most of it in {', '.join(longest)}."]
    if not start_known:
        return [*said, "Which of them ran in the call that drew this page is not known."]
    ran = int(rules["ran"].sum())
    again = ", ".join(rules[rules["ran"] > 0].sort_values("rule")["rule"])
    if ran == jobs:
        return [*said, "All of them ran in the call that drew this page."]
    which = f"{ran} ran ({again})" if ran else "none ran"
    return [*said, f"In the call that drew this page {which}; the results of {jobs - ran} were kept from earlier ones."]


def machine(results: Path, root: Path, jobs: Sequence[Mapping[str, Any]]) -> MachineSection:
    """The section's data. `root` is the workflow's folder; `jobs` are the study's, each with its rule and files."""
    started = results / STARTED
    records = read_records(jobs, results, started.stat().st_mtime if started.exists() else None)
    rules = by_rule(records)
    known = started.exists()
    return MachineSection(_versions(), revision(root), rules, said_of_time(rules, start_known=known), known)
