"""Stretches of layers at one level, found by least squares: where attention sinks emerge, hold and decline.

A curve over layers is cut into stretches of constant level with the smallest sum of squares (the exact optimum by
dynamic programming, Auger and Lawrence 1989). How many there are is chosen by Schwarz's criterion as Yao (1988) uses
it: n / 2 * log(squares / n) + cuts * log(n) is smallest, n being the number of layers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

LEAST_LAYERS = 2  # of a stretch: one layer that differs is no level
RESAMPLES = 1000
SEED = 0
NOISE = 1e-3  # standard deviation of a share that is never gone below, so that exact levels need no further cut


@dataclass(frozen=True)
class Stretch:
    """Layers `first` to `last`, both counted, at a level; `first_low` and `first_high` bound where it begins."""

    phase: str
    first: int
    first_low: int
    first_high: int
    last: int
    level: float


@dataclass(frozen=True)
class Phases:
    """The stretches of a curve, and the share of resamples in which as many are found."""

    stretches: list[Stretch]
    agreeing: float


def _squares(curves: Values) -> Values:
    """Squares about the mean [curves, layers, layers + 1] of layers from the second index up to before the third."""
    count = curves.shape[1]
    sums = np.pad(curves.cumsum(axis=1), ((0, 0), (1, 0)))
    squares = np.pad((curves**2).cumsum(axis=1), ((0, 0), (1, 0)))
    first, end = np.arange(count)[:, None], np.arange(count + 1)[None, :]
    width = end - first
    total = sums[:, end] - sums[:, first]
    found = squares[:, end] - squares[:, first] - total**2 / np.maximum(width, 1)
    return np.where(width >= LEAST_LAYERS, np.maximum(found, 0.0), np.inf)


def segment(curves: Values) -> list[tuple[Values, NDArray[np.int64]]]:
    """For 1, 2, … stretches the smallest squares [curves] and where the stretches begin [curves, stretches].

    `curves` is [curves, layers]. As many stretches are tried as layers are enough for.
    """
    number, count = curves.shape
    cost = _squares(curves)
    best = np.full((number, count + 1), np.inf)
    best[:, LEAST_LAYERS:] = cost[:, 0, LEAST_LAYERS:]
    begins: list[NDArray[np.int64]] = []
    found = [(best[:, count], np.zeros((number, 1), dtype=np.int64))]
    for stretches in range(2, count // LEAST_LAYERS + 1):
        sums = best[:, :count, None] + cost  # the last stretch begins at the second index, and ends before the third
        begins.append(sums.argmin(axis=1))
        best = sums.min(axis=1)
        cuts, end = np.zeros((number, stretches), dtype=np.int64), np.full(number, count)
        for place in range(stretches - 1, 0, -1):
            end = begins[place - 1][np.arange(number), end]
            cuts[:, place] = end
        found.append((best[:, count], cuts))
    return found


def _chosen(found: list[tuple[Values, NDArray[np.int64]]], layers: int) -> NDArray[np.int64]:
    """How many cuts each curve gets [curves]."""
    floor = layers * NOISE**2
    criterion = [
        layers / 2 * np.log(np.maximum(squares, floor) / layers) + cuts * np.log(layers)
        for cuts, (squares, _) in enumerate(found)
    ]
    chosen: NDArray[np.int64] = np.argmin(criterion, axis=0)
    return chosen


def phases_of(sample: Values) -> Phases:
    """The stretches of the mean of a sample [texts, layers].

    Texts are resampled whole, 1,000 times from a fixed seed: bounds are the 2.5 % and 97.5 % quantiles of where a
    stretch begins when a resample is cut into as many. The highest stretch is the plateau, those before it the
    emergence, those after it the decline.
    """
    texts, layers = sample.shape
    mean = sample.mean(axis=0)
    found = segment(mean[None])
    cuts = int(_chosen(found, layers)[0])
    picks = np.random.default_rng(SEED).integers(0, texts, size=(RESAMPLES, texts))
    again = segment(sample[picks].mean(axis=1))
    low, high = np.quantile(again[cuts][1], [0.025, 0.975], axis=0, method="nearest").astype(int)
    begins = [int(begin) for begin in found[cuts][1][0]]
    ends = [*begins[1:], layers]
    levels = [float(mean[begin:end].mean()) for begin, end in zip(begins, ends, strict=True)]
    top = int(np.argmax(levels))
    stretches = [
        Stretch(
            phase="plateau" if number == top else "emergence" if number < top else "decline",
            first=begins[number],
            first_low=int(low[number]),
            first_high=int(high[number]),
            last=ends[number] - 1,
            level=levels[number],
        )
        for number in range(len(begins))
    ]
    return Phases(stretches, float((_chosen(again, layers) == cuts).mean()))
