"""What is kept of a timing, whatever was timed, and which samples a median is taken of; needs no torch."""

from collections.abc import Sequence

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
LEAST_CLEAN = 2  # samples without which contaminated ones are taken as well


def best_samples(samples: pd.DataFrame, arm: Sequence[str]) -> pd.DataFrame:
    """The clean samples of every arm that has at least two, and all samples of the others.

    `arm` names the columns that tell one arm from another.
    """
    clean = ~samples["contaminated"]
    enough = clean.groupby([samples[name] for name in arm]).transform("sum") >= LEAST_CLEAN
    return samples[clean | ~enough]
