"""Lines, knees and extrapolations of what was measured at several lengths, with intervals; needs no torch.

Intervals are 95 % percentile bootstrap intervals (Efron 1979) from a fixed seed: the repetitions of a length are drawn
anew, the lengths stay as they are.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from inferometer.intervals import CONFIDENCE, RESAMPLES, SEED, Interval

Values = NDArray[np.float64]

LEAST_LINE_LENGTHS = 3  # through two, a line leaves nothing over that could tell its error
LEAST_KNEE_LENGTHS = 4  # a knee has three parameters
KNEE_RESAMPLES = 1_000
GRID = 200  # knees that are tried, evenly spaced by their logarithm, besides the lengths themselves
TIE = 1e-9  # part of a gain that rounding may take
NO_GAIN = 1e-20  # a sum of squared relative deviations that is rounding and nothing else


@dataclass(frozen=True)
class Line:
    """A straight line by ordinary least squares: slope in the unit of the values per token, intercept in that unit.

    `p_value` is two-sided, of the hypothesis of no slope. A standard error below 1e-7 of the slope is rounding.
    """

    slope: float
    intercept: float
    r_squared: float
    standard_error: float
    p_value: float
    points: int


def line(tokens: NDArray[np.int64], values: NDArray[np.int64] | Values) -> Line:
    """The line through values [points] at so many tokens [points].

    Values that do not change at all have slope and standard error 0; they leave nothing to explain, so their
    coefficient of determination and p-value are 0/0, and NaN. Raises ValueError on fewer than three distinct lengths.
    """
    if np.unique(tokens).size < LEAST_LINE_LENGTHS:
        raise ValueError(f"a line needs {LEAST_LINE_LENGTHS} lengths or more, got {sorted(set(tokens.tolist()))}")
    if np.ptp(values) == 0:
        return Line(0.0, float(values[0]), np.nan, 0.0, np.nan, values.size)
    found = scipy.stats.linregress(tokens, values)
    return Line(
        slope=float(found.slope),
        intercept=float(found.intercept),
        r_squared=float(found.rvalue**2),
        standard_error=float(found.stderr),
        p_value=float(found.pvalue),
        points=values.size,
    )


@dataclass(frozen=True)
class Knee:
    """Latency that is flat up to `knee_tokens` and grows by `ms_per_token` with each token beyond.

    `low` and `high` are the ends of the knee's interval. `error` is the root mean square of the relative deviations of
    the medians from the fit: a curve that bends smoothly has a knee too, and a large error. `lengths` are those
    measured, ascending. Where all of them rise alike the knee is the shortest, and `flat_ms` the fit there; where none
    rises it is the longest.
    """

    knee_tokens: float
    low: float
    high: float
    flat_ms: float
    ms_per_token: float
    error: float
    lengths: tuple[int, ...]

    @property
    def has_flat(self) -> bool:
        """Whether two lengths or more lie in the flat part; one alone could not show that it is flat."""
        return self.knee_tokens >= self.lengths[1]

    @property
    def rises(self) -> bool:
        """Whether latency rises within the lengths measured."""
        return self.knee_tokens < self.lengths[-1]


def _resampled_medians(sample: Values, resamples: int, generator: np.random.Generator) -> Values:
    """Medians [resamples] of the sample [repetitions], drawn with replacement."""
    picks = generator.integers(0, sample.size, size=(resamples, sample.size))
    medians: Values = np.median(sample[picks], axis=1)
    return medians


def _gains(medians: Values, beyond: Values) -> Values:
    """What each knee explains [..., knees] of the squared relative deviations of medians [..., lengths] from one level.

    `beyond` [lengths, knees] is how far each length lies beyond each knee. Least squares of flat/m + slope·beyond/m − 1
    over lengths is a 2×2 system; a knee whose slope is not above 0 explains nothing.
    """
    inverse = 1 / medians
    weights = inverse**2
    weight, total = weights.sum(axis=-1, keepdims=True), inverse.sum(axis=-1, keepdims=True)
    mixed = weights @ beyond
    determinant = weight * (weights @ beyond**2) - mixed**2
    numerator = weight * (inverse @ beyond) - mixed * total
    rises = (numerator > 0) & (determinant > 0)
    gains: Values = np.where(rises, numerator**2 / np.where(rises, weight * determinant, 1), 0)
    return gains


def _parameters(medians: Values, beyond: Values) -> tuple[float, float]:
    """Level and slope of the fit to medians [lengths] with a given knee; slope 0 where it would be negative."""
    design = np.stack([np.ones_like(medians), beyond], axis=1) / medians[:, None]
    flat, slope = np.linalg.lstsq(design, np.ones_like(medians))[0]
    if beyond.any() and slope > 0:
        return float(flat), float(slope)
    return float((1 / medians).sum() / (1 / medians**2).sum()), 0.0


def _first_and_last(gains: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions [...] of the first and the last of the best knees; the very last one where none explains anything.

    Beyond the longest length but one, all knees fit equally well, with different slopes.
    """
    most = gains.max(axis=-1, keepdims=True)
    best = np.where(most > NO_GAIN, gains >= most * (1 - TIE), np.arange(gains.shape[-1]) == gains.shape[-1] - 1)
    return best.argmax(axis=-1), gains.shape[-1] - 1 - best[..., ::-1].argmax(axis=-1)


def _chosen(medians: Values, noise: Values, beyond: Values) -> int:
    """The position of the knee to believe in: an end of the lengths unless noise seldom does as much for another.

    `noise` [resamples, lengths] is resampled medians over medians. Put on a level, and then on a line from the shortest
    length on, it tells what the best knee explains beyond those where there is none (a bootstrap test, Efron and
    Tibshirani 1993, chapter 16). Of ten repetitions or fewer the bootstrap knows the noise badly, and takes it for a
    rise about one time in ten instead of twenty. Of equally good knees the first is taken, whose slope is the least.
    """
    gains = _gains(medians, beyond)
    by_chance = np.quantile(_gains(noise, beyond).max(axis=-1), CONFIDENCE)
    if gains.max() <= max(by_chance, NO_GAIN):
        return gains.size - 1
    flat, slope = _parameters(medians, beyond[:, 0])
    on_line = _gains((flat + slope * beyond[:, 0]) * noise, beyond)
    by_chance = np.quantile(on_line.max(axis=-1) - on_line[:, 0], CONFIDENCE)
    if gains.max() - gains[0] <= max(by_chance, NO_GAIN):
        return 0
    return int(_first_and_last(gains)[0])


def knee(samples: pd.DataFrame) -> Knee | None:
    """Where latency stops being flat, of samples with columns `tokens` and `ms`; None for fewer than four lengths.

    Two straight parts that meet (Hudson 1966) are fitted to the medians at each length by least squares of relative
    deviations, for many knees between the shortest and the longest length. An end of the interval lies one step of the
    grid further out, since a grid tells no more. A length with one repetition is taken as if it were without noise.
    Raises ValueError where a length or a latency is missing or not above 0.
    """
    if not (samples[["tokens", "ms"]].to_numpy(dtype=np.float64, na_value=np.nan) > 0).all():
        raise ValueError("a knee needs lengths and latencies above 0")
    lengths = np.unique(samples["tokens"].to_numpy(dtype=np.float64))
    if lengths.size < LEAST_KNEE_LENGTHS:
        return None
    by_length = [ms.to_numpy(dtype=np.float64) for _, ms in samples.groupby("tokens")["ms"]]
    knees = np.union1d(np.geomspace(lengths[0], lengths[-1], GRID), lengths)
    beyond = np.maximum(lengths[:, None] - knees, 0)
    generator = np.random.default_rng(SEED)
    medians = np.array([np.median(ms) for ms in by_length])
    resampled = np.stack([_resampled_medians(ms, KNEE_RESAMPLES, generator) for ms in by_length], axis=1)

    chosen = _chosen(medians, resampled / medians, beyond)
    flat, slope = _parameters(medians, beyond[:, chosen])
    deviations = (flat + slope * beyond[:, chosen]) / medians - 1
    first, last = _first_and_last(_gains(resampled, beyond))
    tail = (1 - CONFIDENCE) / 2
    return Knee(
        knee_tokens=float(knees[chosen]),
        low=float(min(np.quantile(knees[np.maximum(first - 1, 0)], tail), knees[chosen])),
        high=float(max(np.quantile(knees[np.minimum(last + 1, knees.size - 1)], 1 - tail), knees[chosen])),
        flat_ms=flat,
        ms_per_token=slope,
        error=float(np.sqrt((deviations**2).mean())),
        lengths=tuple(int(tokens) for tokens in lengths),
    )


def _medians(first: Values, second: Values) -> tuple[Values, Values]:
    """The medians of two independent samples, each with those of its resamples behind it: [1 + resamples].

    Raises ValueError on samples of fewer than two values, which have no interval.
    """
    for sample in (first, second):
        if sample.ndim != 1 or sample.size < 2:
            raise ValueError(f"an interval needs samples [repetitions] of two values or more, got shape {sample.shape}")
    generator = np.random.default_rng(SEED)
    before, after = (
        np.append(np.median(sample), _resampled_medians(sample, RESAMPLES, generator)) for sample in (first, second)
    )
    return before, after


def _interval(values: Values) -> Interval:
    """An estimate with its interval, of that estimate and its resamples behind it [1 + resamples]."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail])
    return Interval(float(values[0]), float(low), float(high))


def extrapolated(fewer: Values, more: Values, layers_fewer: int, layers_more: int, layers: int) -> Interval:
    """What a model of so many layers would take, from samples [repetitions] with fewer of them, in the samples' unit.

    Layers are alike, so the value is a + b·layers: a line through both medians. Its interval covers the noise of the
    samples, which the way from there to `layers` magnifies, and not layers that differ.
    Raises ValueError unless layers_fewer < layers_more <= layers, and on samples of fewer than two values.
    """
    if not layers_fewer < layers_more <= layers:
        raise ValueError(f"{layers} layers do not follow from {layers_fewer} and {layers_more}, in this order")
    at_fewer, at_more = _medians(fewer, more)
    return _interval(at_fewer + (at_more - at_fewer) * (layers - layers_fewer) / (layers_more - layers_fewer))


def ratio_of_medians(above: Values, below: Values) -> Interval:
    """The median of one sample [repetitions] over that of another, which are resampled independently.

    Raises ValueError on samples of fewer than two values.
    """
    numerator, denominator = _medians(above, below)
    return _interval(numerator / denominator)
