"""Bootstrap intervals: the same as those of scipy, and right about as often as they promise."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inferometer.intervals import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Interval,
    bootstrap,
    bootstrap_crossed,
    bootstrap_mean,
)

UNITS = 40  # as many windows as the default study evaluates


def _samples() -> dict[str, NDArray[np.float64]]:
    generator = np.random.default_rng(7)
    return {
        "normal": generator.normal(3.0, 0.5, UNITS),
        "skewed": generator.lognormal(0.0, 1.0, UNITS),
        "two values": generator.integers(0, 2, 200).astype(np.float64),
        "tiny differences": 1e-9 * generator.normal(1.0, 1.0, 25),
        "few": generator.normal(0.0, 1.0, 5),
    }


@pytest.mark.parametrize("name", _samples().keys())
def test_interval_is_that_of_scipy_by_the_percentile_method(name: str) -> None:
    sample = _samples()[name]
    oracle = scipy.stats.bootstrap(
        (sample,), np.mean, method="percentile", confidence_level=0.95, n_resamples=50_000, rng=1
    ).confidence_interval
    interval = bootstrap_mean(sample)
    # A simulated 2.5 % quantile errs by about 0.03 standard errors of the mean; five times that is let pass.
    tolerance = 0.15 * sample.std() / np.sqrt(sample.size)
    assert interval.estimate == pytest.approx(sample.mean(), rel=1e-12)
    assert interval.low == pytest.approx(oracle.low, abs=tolerance, rel=0)
    assert interval.high == pytest.approx(oracle.high, abs=tolerance, rel=0)


def test_intervals_contain_the_true_mean_as_often_as_theory_says() -> None:
    generator, trials, truth = np.random.default_rng(11), 400, 3.0
    hits = 0
    for _ in range(trials):
        interval = bootstrap_mean(generator.normal(truth, 2.0, UNITS))
        hits += interval.low <= truth <= interval.high
    # On few normal units the percentile method is a little too narrow, as it takes the sample's deviation for
    # the true one: it holds the mean as often as Student's t stays below the normal quantile, 94.0 % here.
    quantile = scipy.stats.norm.ppf(0.975) * np.sqrt((UNITS - 1) / UNITS)
    share = 1 - 2 * scipy.stats.t.sf(quantile, UNITS - 1)
    assert share == pytest.approx(0.94, abs=0.001)
    fewest, most = scipy.stats.binom.ppf([1e-4, 1 - 1e-4], trials, share)
    assert fewest <= hits <= most


def test_a_paired_interval_is_narrower_than_either_alone() -> None:
    generator = np.random.default_rng(3)
    difficulty = generator.normal(3.0, 1.0, UNITS)
    worse = difficulty + generator.normal(0.1, 0.01, UNITS)
    paired, alone = bootstrap_mean(worse - difficulty), bootstrap_mean(worse)
    assert 0.05 < paired.low < paired.high < 0.15
    assert (paired.high - paired.low) < (alone.high - alone.low) / 20


def test_settings_are_those_that_the_report_states() -> None:
    assert (RESAMPLES, CONFIDENCE, SEED) == (10_000, 0.95, 0)


def test_the_interval_of_two_units_is_known_exactly() -> None:
    assert bootstrap_mean(np.array([0.0, 1.0])) == Interval(0.5, 0.0, 1.0)


def test_the_same_sample_has_the_same_interval_and_is_left_as_it_was() -> None:
    sample = np.random.default_rng(0).normal(size=UNITS)
    before = sample.copy()
    assert bootstrap_mean(sample) == bootstrap_mean(sample.copy())
    np.testing.assert_array_equal(sample, before)


UNIT = st.floats(-1e6, 1e6)


@settings(max_examples=25)
@given(st.lists(UNIT, min_size=2, max_size=30), st.floats(0.1, 100), UNIT)
def test_intervals_lie_within_the_sample_and_move_and_grow_with_it(
    units: list[float], factor: float, shift: float
) -> None:
    sample = np.array(units)
    interval, moved = bootstrap_mean(sample), bootstrap_mean(sample * factor + shift)
    slack = 1e-9 * (1 + np.abs(sample).max())
    assert sample.min() - slack <= interval.low <= interval.high <= sample.max() + slack
    for part in ("estimate", "low", "high"):
        expected = getattr(interval, part) * factor + shift
        assert getattr(moved, part) == pytest.approx(expected, rel=1e-9, abs=1e-9 * (1 + abs(shift) + 1e8))


def _ratio(means: NDArray[np.float64]) -> NDArray[np.float64]:
    ratios: NDArray[np.float64] = np.exp(means[..., 0] - means[..., 1])
    return ratios


def test_interval_of_a_statistic_of_pairs_is_that_of_scipy() -> None:
    generator = np.random.default_rng(5)
    base = generator.normal(3.0, 0.5, UNITS)
    worse = base + generator.normal(0.2, 0.1, UNITS)
    oracle = scipy.stats.bootstrap(
        (worse, base),
        lambda x, y, axis: np.exp(x.mean(axis=axis) - y.mean(axis=axis)),
        paired=True,
        method="percentile",
        n_resamples=50_000,
        rng=1,
    )
    interval = bootstrap(np.stack([worse, base], axis=1), _ratio)
    tolerance = 0.15 * oracle.standard_error
    assert interval.estimate == pytest.approx(np.exp((worse - base).mean()), rel=1e-12)
    assert interval.low == pytest.approx(oracle.confidence_interval.low, abs=tolerance, rel=0)
    assert interval.high == pytest.approx(oracle.confidence_interval.high, abs=tolerance, rel=0)


def test_the_interval_of_a_mean_is_that_of_the_statistic_that_is_one_column() -> None:
    sample = np.random.default_rng(0).normal(size=(UNITS, 2))
    assert bootstrap_mean(sample[:, 1]) == bootstrap(sample, lambda means: means[..., 1])


@pytest.mark.parametrize("shape", [(0,), (1,), (4, 1), (2, 2), ()])
def test_a_sample_without_a_mean_and_its_interval_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two units or more|a one-dimensional sample"):
        bootstrap_mean(np.zeros(shape))


@pytest.mark.parametrize("shape", [(0, 2), (1, 2), (5,), (2, 2, 2)])
def test_a_sample_without_two_units_of_columns_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[units, columns\] of two units or more"):
        bootstrap(np.zeros(shape), _ratio)


def test_a_crossed_interval_is_that_of_rows_and_columns_drawn_one_by_one() -> None:
    generator = np.random.default_rng(3)
    sample = generator.normal(0, 1, (6, 1)) + generator.normal(0, 0.5, (1, 12)) + generator.normal(0, 0.2, (6, 12))
    means = [sample[generator.integers(0, 6, 6)][:, generator.integers(0, 12, 12)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    interval = bootstrap_crossed(sample)
    tolerance = 0.15 * float(np.std(means))
    assert interval.estimate == pytest.approx(sample.mean(), rel=1e-12)
    assert interval.low == pytest.approx(low, abs=tolerance)
    assert interval.high == pytest.approx(high, abs=tolerance)


def test_a_crossed_interval_of_a_single_row_is_that_of_its_columns() -> None:
    row = np.random.default_rng(4).normal(0, 1, 30)
    crossed, plain = bootstrap_crossed(row[None]), bootstrap_mean(row)
    tolerance = 0.15 * row.std() / np.sqrt(row.size)
    assert crossed.estimate == pytest.approx(plain.estimate, rel=1e-12)
    assert (crossed.low, crossed.high) == pytest.approx((plain.low, plain.high), abs=tolerance)


def test_a_crossed_interval_is_wider_than_one_that_takes_all_cells_for_independent() -> None:
    rows = np.random.default_rng(5).normal(0, 1, (5, 1))
    crossed, flat = bootstrap_crossed(rows + np.zeros((5, 40))), bootstrap_mean((rows + np.zeros((5, 40))).ravel())
    assert crossed.high - crossed.low > 3 * (flat.high - flat.low)


@pytest.mark.parametrize("shape", [(3, 1), (0, 4), (4,)])
def test_a_sample_that_is_not_crossed_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a crossed sample has rows and two columns or more"):
        bootstrap_crossed(np.zeros(shape))
