"""What Snakemake recorded of each job's wall time and memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from inferometer.errors import InferometerError

RECORD_COLUMNS = ("rule", "wall_s", "memory_mib", "ended", "ran")


def read_records(jobs: Sequence[Mapping[str, str]], started: float | None) -> pd.DataFrame:
    """One row for each of `jobs` (rule and benchmark file) whose record is there.

    `wall_s` and `memory_mib` (the most resident memory) are Snakemake's own figures; memory is missing where a job was
    over before it was looked at. `ended` is the file's date, in seconds since 1970. `ran` is whether that is not before
    `started`, the start of the call that draws the page; without a start it is missing.
    Raises InferometerError naming a record that can't be read.
    """
    rows = []
    for job in jobs:
        path = Path(job["benchmark"])
        if not path.exists():
            continue
        try:
            [record] = pd.read_csv(path, sep="\t", na_values=["-"]).to_dict("records")
            wall, memory = float(record["s"]), float(record["max_rss"])
        except (OSError, ValueError, KeyError) as error:
            raise InferometerError(f"{path} is not a record of Snakemake's; delete it and run again.") from error
        ended = path.stat().st_mtime
        rows.append((job["rule"], wall, memory, ended, None if started is None else ended >= started))
    return pd.DataFrame(rows, columns=list(RECORD_COLUMNS))


def by_rule(records: pd.DataFrame) -> pd.DataFrame:
    """The records of each rule together, the longest first: jobs, wall seconds, memory, dates, and how many ran."""
    grouped = records.assign(ran=records["ran"].astype("boolean")).groupby("rule", as_index=False)
    table = grouped.agg(
        jobs=("rule", "size"),
        wall_s=("wall_s", "sum"),
        longest_s=("wall_s", "max"),
        memory_mib=("memory_mib", "max"),
        first=("ended", "min"),
        last=("ended", "max"),
        ran=("ran", "sum"),
    )
    return table.sort_values(["wall_s", "rule"], ascending=[False, True], ignore_index=True)
