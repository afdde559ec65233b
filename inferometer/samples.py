"""What is kept of a timing, whatever was timed, and what is said of many; needs no torch."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from inferometer.tables import Column

SAMPLE = (
    Column("repetition", "int64", "turn of the arm, from 0"),
    Column("calls", "int64", "calls in a row that the sample is the mean of"),
    Column("wall_ms", "float64", "wall time of a call in milliseconds"),
    Column("cpu_ms", "float64", "processor time of a call in milliseconds, all threads together"),
    Column("foreign_load", "float64", "share of all processors' time that went elsewhere meanwhile"),
    Column("contaminated", "bool", "whether that was too much for the time to be believed"),
)
SAMPLE_OR_REASON = (
    *(replace(column, nullable=True) if column.type == "float64" else column for column in SAMPLE),
    Column("reason", "string", "why nothing was measured; null where it was", nullable=True),
)
SPREAD = (
    Column("samples", "int64", "samples that the figures are of: clean ones where there are two or more"),
    Column("contaminated", "int64", "how many of them are contaminated by other work"),
    Column("latency_ms", "float64", "median of wall time", nullable=True),
    Column("latency_ms_q25", "float64", "its lower quartile", nullable=True),
    Column("latency_ms_q75", "float64", "its upper quartile", nullable=True),
    Column("latency_ms_p95", "float64", "its 95th percentile", nullable=True),
    Column("latency_ms_mean", "float64", "its mean", nullable=True),
    Column("latency_ms_std", "float64", "its standard deviation", nullable=True),
    Column("cpu_ms", "float64", "median of processor time, all threads together", nullable=True),
)
LEAST_CLEAN = 2  # samples without which contaminated ones are taken as well


def refusal(reason: str) -> dict[str, object]:
    """The columns SAMPLE_OR_REASON of an arm that could not be measured."""
    nothing = {column.name: None for column in SAMPLE_OR_REASON}
    return {**nothing, "repetition": 0, "calls": 0, "contaminated": False, "reason": reason}


def best_samples(samples: pd.DataFrame, arm: Sequence[str]) -> pd.DataFrame:
    """The clean samples of every arm that has at least two, and all samples of the others.

    `arm` names the columns that tell one arm from another.
    """
    clean = ~samples["contaminated"].astype(bool)
    enough = clean.groupby([samples[name] for name in arm]).transform("sum") >= LEAST_CLEAN
    return samples[clean | ~enough]


def spread(samples: pd.DataFrame) -> dict[str, float]:
    """The columns SPREAD of an arm's samples; of an arm that could not be measured, none but nulls."""
    taken = samples[samples["calls"] > 0]
    wall = taken["wall_ms"].astype("float64")
    return {
        "samples": len(taken),
        "contaminated": int(taken["contaminated"].sum()),
        "latency_ms": wall.median(),
        "latency_ms_q25": float(wall.quantile(0.25)),
        "latency_ms_q75": float(wall.quantile(0.75)),
        "latency_ms_p95": float(wall.quantile(0.95)),
        "latency_ms_mean": wall.mean(),
        "latency_ms_std": wall.std(),
        "cpu_ms": taken["cpu_ms"].astype("float64").median(),
    }
