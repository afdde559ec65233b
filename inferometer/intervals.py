"""Confidence intervals by the bootstrap (Efron 1979), percentile method."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0


@dataclass(frozen=True)
class Interval:
    """A point estimate and the bounds of its confidence interval, all in the unit of the sample."""

    estimate: float
    low: float
    high: float


def bootstrap_mean(sample: NDArray[np.float64]) -> Interval:
    """Mean of a one-dimensional sample with its 95 % bootstrap interval.

    The units of the sample (windows, items) are resampled with replacement, 10,000 times from a fixed seed, so
    the same sample always has the same interval. For a paired comparison pass the differences of the pairs.
    Raises ValueError on fewer than two units, which have no interval.
    """
    if sample.ndim != 1 or sample.size < 2:
        raise ValueError(f"an interval needs a one-dimensional sample of two or more, got shape {sample.shape}")
    generator = np.random.default_rng(SEED)
    picks = generator.integers(0, sample.size, size=(RESAMPLES, sample.size))
    means = sample[picks].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(sample.mean()), float(low), float(high))
