"""Confidence intervals by the bootstrap (Efron 1979), percentile method."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
PICKS_AT_ONCE = 2**22  # values drawn before they are averaged, so that large samples need little memory


@dataclass(frozen=True)
class Interval:
    """A point estimate and the bounds of its confidence interval, all in the unit of the sample."""

    estimate: float
    low: float
    high: float


def bootstrap(sample: NDArray[np.float64], statistic: Statistic) -> Interval:
    """A statistic of column means with its 95 % bootstrap interval.

    `sample` is [units, columns]; `statistic` turns means [..., columns] into values [...]. The units (windows, items)
    are resampled whole, which keeps what was measured on the same unit together: that is what pairs two schemes.
    10,000 resamples from a fixed seed, so the same sample always has the same interval.
    Raises ValueError on fewer than two units, which have no interval.
    """
    if sample.ndim != 2 or sample.shape[0] < 2:
        raise ValueError(f"an interval needs a sample [units, columns] of two units or more, got shape {sample.shape}")
    generator = np.random.default_rng(SEED)
    at_once = max(1, PICKS_AT_ONCE // sample.size)
    means = []
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        picks = generator.integers(0, sample.shape[0], size=(count, sample.shape[0]))
        means.append(sample[picks].mean(axis=1))
    resampled = statistic(np.concatenate(means))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(statistic(sample.mean(axis=0))), float(low), float(high))


def bootstrap_mean(sample: NDArray[np.float64]) -> Interval:
    """Mean of a one-dimensional sample with its interval; for a paired comparison pass the differences of the pairs."""
    if sample.ndim != 1:
        raise ValueError(f"a mean is taken of a one-dimensional sample, got shape {sample.shape}")
    return bootstrap(sample[:, None], lambda means: means[..., 0])
