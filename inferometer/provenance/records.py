"""What Snakemake recorded of each job's wall time and memory."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.errors import InferometerError
from inferometer.runs import RUN
from inferometer.tables import read_table
from inferometer.units import MIB

RECORD_COLUMNS = ("rule", "wall_s", "memory_mib", "ended", "ran")


def _own_memory_mib(outputs: Iterable[Path]) -> float:
    """The most memory that a job on a CPU noted of itself in a RUN table, or 0.

    What a copy of another process does for a job (`inferometer/keeper.py`) is hidden from Snakemake.
    """
    runs = (read_table(RUN, path) for path in outputs if path.name.endswith("run.parquet") and path.exists())
    return max((float(run.loc[run["device"] == "cpu", "peak_memory_bytes"].max()) / MIB for run in runs), default=0.0)


def read_records(jobs: Sequence[Mapping[str, Any]], results: Path, started: float | None) -> pd.DataFrame:
    """One row for each of `jobs` (rule, outputs and benchmark file within `results`) whose record is there.

    `wall_s` is Snakemake's own figure, by the system's clock; it is missing where that was set back in between, so that
    less than nothing came out. `memory_mib` is the most resident memory, as Snakemake saw it or the job itself,
    whichever is more; it is missing where a job was over before it was looked at. `ended` is the file's date, in
    seconds since 1970. `ran` is whether that is not before `started`, the start of the call that draws the page;
    without a start it is missing.
    Raises InferometerError naming a record that can't be read.
    """
    rows = []
    for job in jobs:
        path = results / job["benchmark"]
        if not path.exists():
            continue
        try:
            [record] = pd.read_csv(path, sep="\t", na_values=["-"]).to_dict("records")
            wall_s, memory = float(record["s"]), float(record["max_rss"])
        except (OSError, ValueError, KeyError) as error:
            raise InferometerError(f"{path} is not a record of Snakemake's; delete it and run again.") from error
        own = _own_memory_mib(results / name for name in job["outputs"])
        if own > 0 and not memory > own:  # nor where Snakemake saw nothing
            memory = own
        ended = path.stat().st_mtime
        wall_s = wall_s if wall_s >= 0 else math.nan
        rows.append((job["rule"], wall_s, memory, ended, None if started is None else ended >= started))
    return pd.DataFrame(rows, columns=list(RECORD_COLUMNS))


def by_rule(records: pd.DataFrame) -> pd.DataFrame:
    """The records of each rule together, the longest first: jobs, wall seconds, memory, dates, and how many ran."""
    grouped = records.assign(ran=records["ran"].astype("boolean")).groupby("rule", as_index=False)
    table = grouped.agg(
        jobs=("rule", "size"),
        wall_s=("wall_s", lambda seconds: seconds.sum(min_count=1)),
        longest_s=("wall_s", "max"),
        memory_mib=("memory_mib", "max"),
        first=("ended", "min"),
        last=("ended", "max"),
        ran=("ran", "sum"),
    )
    return table.sort_values(["wall_s", "rule"], ascending=[False, True], ignore_index=True)
