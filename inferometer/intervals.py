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


def _percentile_interval(estimate: float, resampled: NDArray[np.float64]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


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
    return _percentile_interval(float(statistic(sample.mean(axis=0))), statistic(np.concatenate(means)))


def bootstrap_mean(sample: NDArray[np.float64]) -> Interval:
    """Mean of a one-dimensional sample with its interval; for a paired comparison pass the differences of the pairs."""
    if sample.ndim != 1:
        raise ValueError(f"a mean is taken of a one-dimensional sample, got shape {sample.shape}")
    return bootstrap(sample[:, None], lambda means: means[..., 0])


def bootstrap_crossed(sample: NDArray[np.float64]) -> Interval:
    """Mean of a sample [rows, columns] that crosses two kinds of units, with its interval over both.

    Rows (words) and columns (texts) are resampled whole and independently of each other (the pigeonhole bootstrap, Owen
    2007): the interval covers other words in other texts. A single row counts as given.
    Raises ValueError on fewer than two columns.
    """
    if sample.ndim != 2 or sample.shape[0] < 1 or sample.shape[1] < 2:
        raise ValueError(f"a crossed sample has rows and two columns or more, got shape {sample.shape}")
    generator = np.random.default_rng(SEED)
    rows, columns = (generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) for count in sample.shape)
    resampled = ((rows @ sample) * columns).sum(axis=1) / sample.size
    return _percentile_interval(float(sample.mean()), resampled)
