"""On how many kinds of machine the jobs ran, and which of their times may therefore not be held against each other."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from inferometer.report.formats import enumerated

COMPUTING = ("device", "device_name", "features", "cores")  # threads are a job's own choice
VERSIONS = ("system", "python", "torch", "transformers")
AGAINST_PEAKS = ("profile_latency", "profile_cache")  # whose times are held against measured peaks


@dataclass(frozen=True)
class Kind:
    """Machines of one kind: a row of the RUN table for what they are, and in words what differs or ran on them."""

    machine: Any
    threads: str
    memory: str
    jobs: str


def _as_ranges(values: pd.Series) -> str:
    least, most = values.min(), values.max()
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"


def _steps(rows: pd.DataFrame) -> str:
    """What ran, each step with what it ran on, such as `evaluate (fp, w8a8)`."""
    said = []
    for step, own in rows.groupby("step", sort=False):
        names = own["scheme"].fillna(own["model"])
        said.append(f"{step} ({', '.join(dict.fromkeys(names))})")
    return "; ".join(said)


def kinds(runs: pd.DataFrame) -> list[Kind]:
    """The kinds of machine in a RUN table, that with the most jobs first. Nodes that are alike are of one kind."""
    groups = [rows for _, rows in runs.groupby([*COMPUTING, *VERSIONS], sort=False)]
    groups.sort(key=len, reverse=True)
    return [
        Kind(next(rows.itertuples()), _as_ranges(rows["torch_threads"]), _as_ranges(rows["memory_gib"]), _steps(rows))
        for rows in groups
    ]


def differences(runs: pd.DataFrame, peaks: pd.DataFrame) -> list[str]:
    """What readers of times must know where jobs ran on unlike machines; nothing where all are alike.

    `runs` is a RUN table and `peaks` a MACHINE table, either of which may be empty.
    """
    said = []
    if (count := len(kinds(runs))) > 1:
        said.append(
            f"The jobs ran on {count} kinds of machine, or with different versions: their times and memory compare "
            "within a kind only."
        )
    if peaks.empty:
        return said
    own = tuple(peaks.iloc[0][list(COMPUTING)])
    timed = runs[runs["step"].isin(AGAINST_PEAKS)]
    strange = [str(row["model"]) for _, row in timed.iterrows() if tuple(row[list(COMPUTING)]) != own]
    if strange:
        said.append(
            "The peaks were measured on another kind of machine than the times of "
            f"{enumerated(dict.fromkeys(strange))}, which therefore can't be held against the roofline."
        )
    return said
