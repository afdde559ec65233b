"""Lines, knees and extrapolations: planted ones are found, and intervals hold them about as often as they promise."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inferometer.intervals import Interval
from inferometer.profiling.fits import GRID, Knee, extrapolated, knee, line, ratio_of_medians

Values = NDArray[np.float64]

LENGTHS = (10, 50, 100, 200, 400, 800)
STEP = (LENGTHS[-1] / LENGTHS[0]) ** (1 / (GRID - 1))  # from one knee that is tried to the next


def _frame(samples: dict[int, Values]) -> pd.DataFrame:
    return pd.DataFrame([(tokens, ms) for tokens, sample in samples.items() for ms in sample], columns=["tokens", "ms"])


def _drawn(
    law: Callable[[float], float],
    noise: float,
    *,
    repetitions: int = 7,
    seed: int = 0,
    lengths: Sequence[int] = LENGTHS,
) -> pd.DataFrame:
    """Latencies that follow a law of the length, with relative normal noise."""
    generator = np.random.default_rng(seed)
    return _frame({n: law(n) * (1 + noise * generator.standard_normal(repetitions)) for n in lengths})


def _found(samples: pd.DataFrame) -> Knee:
    found = knee(samples)
    assert found is not None
    return found


def _bent(flat: float, slope: float, at: float) -> Callable[[float], float]:
    return lambda tokens: flat + slope * max(tokens - at, 0)


# Lines


@given(
    tokens=st.sets(st.integers(0, 4000), min_size=3, max_size=30),
    slope=st.integers(1, 10**7),
    intercept=st.integers(10**7, 10**10),
)
def test_a_line_through_bytes_is_exact(tokens: set[int], slope: int, intercept: int) -> None:
    lengths = np.array(sorted(tokens), dtype=np.int64)
    fitted = line(lengths, intercept + slope * lengths)
    assert fitted.slope == pytest.approx(slope, rel=1e-12)
    assert fitted.intercept == pytest.approx(intercept, rel=1e-12)
    assert fitted.r_squared == pytest.approx(1, abs=1e-12)
    assert fitted.standard_error <= 1e-7 * slope
    assert fitted.p_value < 1e-6
    assert fitted.points == lengths.size


def test_a_line_through_scatter_is_that_of_the_textbook_and_of_polyfit() -> None:
    generator = np.random.default_rng(4)
    lengths = np.repeat(np.array([16, 32, 64, 128, 256]), 3)
    values = 5e8 + 12_288 * lengths + generator.normal(0, 3e5, lengths.size)
    fitted = line(lengths, values)
    assert (fitted.slope, fitted.intercept) == pytest.approx(tuple(np.polyfit(lengths, values, 1)), rel=1e-9)
    residuals = values - fitted.intercept - fitted.slope * lengths
    variance = (residuals**2).sum() / (lengths.size - 2)
    standard_error = np.sqrt(variance / ((lengths - lengths.mean()) ** 2).sum())
    assert fitted.r_squared == pytest.approx(1 - (residuals**2).sum() / ((values - values.mean()) ** 2).sum())
    assert fitted.standard_error == pytest.approx(standard_error)
    assert fitted.p_value == pytest.approx(2 * scipy.stats.t.sf(fitted.slope / standard_error, lengths.size - 2))
    assert fitted.points == 15


def test_values_that_do_not_change_leave_nothing_to_explain() -> None:
    fitted = line(np.array([1, 2, 3, 4]), np.array([7 * 10**9] * 4))
    assert (fitted.slope, fitted.intercept, fitted.standard_error, fitted.points) == (0, 7e9, 0, 4)
    assert np.isnan(fitted.r_squared)
    assert np.isnan(fitted.p_value)


def test_a_line_needs_three_lengths_however_many_points_there_are() -> None:
    with pytest.raises(ValueError, match=r"3 lengths or more, got \[1, 2\]"):
        line(np.array([1, 2, 1, 2]), np.array([5, 6, 5, 6]))


# Knees


@settings(max_examples=60)
@given(flat=st.floats(0.01, 1e4), at=st.floats(50, 370), rise=st.floats(0.2, 100))
def test_a_planted_knee_is_recovered_to_a_step_of_the_grid(flat: float, at: float, rise: float) -> None:
    # Next to the longest length but one, the best knee of the grid is that length, and the interval opens behind it.
    slope = rise * flat / (LENGTHS[-1] - at)
    found = _found(_drawn(_bent(flat, slope, at), 0, repetitions=2))
    assert at / STEP <= found.knee_tokens <= at * STEP
    assert found.low <= at <= found.high
    assert found.high / found.low <= STEP**3
    assert found.flat_ms == pytest.approx(flat, rel=0.02 * rise)
    assert found.ms_per_token == pytest.approx(slope, rel=0.1)
    assert found.rises
    assert found.lengths == LENGTHS


@settings(max_examples=60)
@given(
    flat=st.floats(0.1, 1e3),
    at=st.floats(60, 380),
    rise=st.floats(0.5, 20),
    noise=st.floats(0, 0.02),
    seed=st.integers(0, 10**6),
)
def test_a_planted_knee_is_found_under_noise(flat: float, at: float, rise: float, noise: float, seed: int) -> None:
    slope = rise * flat / (LENGTHS[-1] - at)
    found = _found(_drawn(_bent(flat, slope, at), noise, repetitions=9, seed=seed))
    # What four deviations of a median on both sides of the bend can move the crossing of the two parts by.
    blur = 4 * 1.25 * noise / 3 * (2 * flat / slope + LENGTHS[-1]) + (STEP - 1) * at
    assert found.knee_tokens == pytest.approx(at, abs=blur)
    assert LENGTHS[0] <= found.low <= found.knee_tokens <= found.high <= LENGTHS[-1]
    assert found.flat_ms == pytest.approx(flat, rel=4 * noise + 0.02 * rise)
    assert found.error <= 2 * noise + 0.02
    assert found.rises


@pytest.mark.parametrize("at", [150.0, 320.0])
def test_intervals_contain_the_planted_knee_about_as_often_as_they_promise(at: float) -> None:
    trials = 100
    found = [_found(_drawn(_bent(40, 0.1, at), 0.02, repetitions=10, seed=seed)) for seed in range(trials)]
    hits = sum(one.low <= at <= one.high for one in found)
    assert hits >= scipy.stats.binom.ppf(1e-3, trials, 0.93)
    # Intervals that held everything would hold the truth as well.
    assert np.median([one.high / one.low for one in found]) < 1.6


def test_the_knee_of_a_study_lies_where_its_figures_begin_to_rise() -> None:
    medians = (39.63, 38.61, 39.26, 39.46, 45.47, 71.67)
    deviations = (0.7585, 0.0733, 0.6141, 0.0994, 0.6183, 0.1240)
    generator = np.random.default_rng(1)
    drawn = zip(LENGTHS, medians, deviations, strict=True)
    found = _found(_frame({tokens: generator.normal(median, deviation, 5) for tokens, median, deviation in drawn}))
    assert 200 < found.low < found.knee_tokens < found.high < 400
    assert found.flat_ms == pytest.approx(39.2, abs=0.4)
    assert found.ms_per_token == pytest.approx((71.67 - 45.47) / 400, rel=0.03)
    assert found.error < 0.015
    assert found.has_flat
    assert found.rises


def test_the_fit_is_the_best_of_all_by_an_optimizer() -> None:
    samples = _drawn(_bent(40, 0.1, 130), 0.05, seed=5)
    found, medians = _found(samples), samples.groupby("tokens")["ms"].median()
    lengths, measured = medians.index.to_numpy(dtype=np.float64), medians.to_numpy(dtype=np.float64)

    def error(parameters: Sequence[float]) -> float:
        fit = parameters[0] + parameters[1] * np.maximum(lengths - parameters[2], 0)
        return float(np.sqrt(((fit / measured - 1) ** 2).mean()))

    assert found.error == pytest.approx(error((found.flat_ms, found.ms_per_token, found.knee_tokens)), rel=1e-9)
    best = scipy.optimize.differential_evolution(error, [(20, 60), (0, 1), (10, 800)], tol=1e-12, rng=0, popsize=40)
    assert found.error == pytest.approx(best.fun, rel=1e-3)
    assert found.knee_tokens == pytest.approx(best.x[2], rel=2 * (STEP - 1))


@pytest.mark.parametrize("noise", [0, 0.01, 0.05])
def test_where_nothing_rises_the_knee_is_the_longest_length(noise: float) -> None:
    found = [_found(_drawn(_bent(40, 0, 800), noise, seed=seed)) for seed in range(40)]
    flat = [one for one in found if not one.rises]
    assert len(flat) == 40 if noise == 0 else len(flat) >= 30
    for one in flat:
        assert (one.knee_tokens, one.high, one.ms_per_token, one.has_flat) == (800, 800, 0, True)
        assert one.flat_ms == pytest.approx(40, rel=noise + 1e-12)


def test_latency_that_falls_with_the_length_does_not_rise() -> None:
    found = _found(_drawn(lambda tokens: 50 - 0.01 * tokens, 0))
    assert not found.rises
    assert found.ms_per_token == 0


@pytest.mark.parametrize(("level", "slope"), [(40, 0.04), (1, 1), (0.1, 0.5)])
@pytest.mark.parametrize("noise", [0, 0.01])
def test_where_all_lengths_rise_alike_the_knee_is_the_shortest(level: float, slope: float, noise: float) -> None:
    found = [_found(_drawn(lambda tokens: level + slope * tokens, noise, seed=seed)) for seed in range(20)]
    straight = [one for one in found if one.knee_tokens == LENGTHS[0]]
    assert len(straight) == 20 if noise == 0 else len(straight) >= 13
    assert not any(one.has_flat for one in found)
    for one in straight:
        assert (one.low, one.rises) == (LENGTHS[0], True)
        assert one.ms_per_token == pytest.approx(slope, rel=5 * noise + 1e-9)
        assert one.flat_ms == pytest.approx(level + slope * LENGTHS[0], rel=5 * noise + 1e-9)


def test_one_length_before_the_rise_does_not_make_a_flat_part() -> None:
    found = _found(_drawn(_bent(40, 0.5, 30), 0))
    assert found.knee_tokens == pytest.approx(30, rel=STEP - 1)
    assert not found.has_flat


def test_a_rise_at_the_longest_length_alone_leaves_open_where_it_began() -> None:
    found = _found(_drawn(_bent(40, 0.1, 600), 0.01))
    assert found.rises
    assert found.has_flat
    assert 390 <= found.knee_tokens <= 410
    assert found.low <= 400
    assert found.high == 800


def test_a_curve_that_bends_smoothly_has_a_large_error() -> None:
    smooth = _found(_drawn(lambda tokens: 5 + 0.05 * tokens + 0.0002 * tokens**2, 0.01))
    sharp = _found(_drawn(_bent(40, 0.1, 150), 0.01))
    assert smooth.error > 0.1
    assert sharp.error < 0.01


@pytest.mark.parametrize("factor", [2.0, 0.3])
def test_the_unit_of_latency_moves_no_knee(factor: float) -> None:
    samples = _drawn(_bent(40, 0.1, 150), 0.02)
    one, other = _found(samples), _found(samples.assign(ms=factor * samples["ms"]))
    assert (other.knee_tokens, other.low, other.high) == (one.knee_tokens, one.low, one.high)
    assert other.flat_ms == pytest.approx(factor * one.flat_ms, rel=1e-12)
    assert other.ms_per_token == pytest.approx(factor * one.ms_per_token, rel=1e-12)
    assert other.error == pytest.approx(one.error, rel=1e-9)


def test_the_same_samples_in_another_order_of_lengths_have_the_same_knee() -> None:
    samples = _drawn(_bent(40, 0.1, 150), 0.02)
    assert knee(samples.sort_values("tokens", ascending=False, kind="stable")) == knee(samples)


def test_more_noise_makes_a_wider_interval() -> None:
    calm, loud = (_found(_drawn(_bent(40, 0.1, 150), noise)) for noise in (0.005, 0.05))
    assert loud.high - loud.low > 3 * (calm.high - calm.low)


def test_lengths_that_were_measured_once_have_a_knee() -> None:
    found = _found(_drawn(_bent(40, 0.1, 200), 0, repetitions=1))
    assert found.knee_tokens == pytest.approx(200)


def test_fewer_than_four_lengths_have_no_knee() -> None:
    assert knee(_drawn(_bent(40, 0.1, 60), 0, lengths=LENGTHS[:3])) is None
    assert knee(_drawn(_bent(40, 0.1, 60), 0, lengths=())) is None
    assert knee(_drawn(_bent(40, 0.1, 60), 0, lengths=LENGTHS[:4])) is not None


@pytest.mark.parametrize(("tokens", "ms"), [(0, 40.0), (10, 0.0), (10, np.nan), (10, None)])
def test_samples_without_a_length_or_a_latency_are_refused(tokens: int, ms: float | None) -> None:
    samples = _drawn(_bent(40, 0.1, 150), 0)
    odd = pd.DataFrame({"tokens": [tokens], "ms": pd.array([ms], dtype="Float64")})
    with pytest.raises(ValueError, match="above 0"):
        knee(pd.concat([samples.astype({"ms": "Float64"}), odd]))


# Extrapolations and ratios


@given(
    base=st.integers(0, 10**6),
    layer=st.integers(1, 10**5),
    fewer=st.integers(1, 8),
    step=st.integers(1, 8),
    beyond=st.integers(0, 90),
)
@settings(max_examples=30)
def test_a_linear_law_without_noise_is_extrapolated_exactly(
    base: int, layer: int, fewer: int, step: int, beyond: int
) -> None:
    more, layers = fewer + step, fewer + step + beyond
    interval = extrapolated(
        np.full(3, base + layer * fewer * 1.0), np.full(4, base + layer * more * 1.0), fewer, more, layers
    )
    assert interval == Interval(*[base + layer * layers] * 3)


def test_extrapolated_intervals_contain_the_truth_about_as_often_as_they_promise() -> None:
    generator, trials, layers = np.random.default_rng(2), 150, 24
    hits, widths = 0, []
    for _ in range(trials):
        fewer, more = (3 + 2 * count + generator.normal(0, 0.05, 15) for count in (1, 3))
        interval = extrapolated(fewer, more, 1, 3, layers)
        hits += interval.low <= 3 + 2 * layers <= interval.high
        widths.append(interval.high - interval.low)
    # Resampled medians of few values scatter a little more than medians do: 3,000 trials held 96.6 %.
    fewest, most = scipy.stats.binom.ppf([1e-4, 1 - 1e-4], trials, 0.966)
    assert fewest <= hits <= most
    # a + b·24 is 11.5 times the upper median less 10.5 times the lower one, and a median of 15 normal values deviates
    # by 0.3187 of theirs.
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 0.3187 * 0.05 * np.hypot(11.5, 10.5), rel=0.1)


@pytest.mark.parametrize(("fewer", "more", "layers"), [(2, 2, 24), (4, 2, 24), (2, 4, 3), (2, 4, 2)])
def test_layers_that_do_not_follow_are_refused(fewer: int, more: int, layers: int) -> None:
    with pytest.raises(ValueError, match="do not follow"):
        extrapolated(np.ones(3), np.ones(3), fewer, more, layers)


def test_the_ratio_of_medians_is_that_of_scipy() -> None:
    generator = np.random.default_rng(6)
    # Many values, since resampled medians are values of the sample, and the ends of an interval jump between them.
    above, below = generator.lognormal(1.0, 0.2, 200), generator.lognormal(0.0, 0.3, 300)
    oracle = scipy.stats.bootstrap(
        (above, below),
        lambda x, y, axis: np.median(x, axis=axis) / np.median(y, axis=axis),
        method="percentile",
        n_resamples=20_000,
        batch=2_000,
        rng=1,
    )
    interval = ratio_of_medians(above, below)
    assert interval.estimate == np.median(above) / np.median(below)
    tolerance = 0.15 * oracle.standard_error
    assert interval.low == pytest.approx(oracle.confidence_interval.low, abs=tolerance, rel=0)
    assert interval.high == pytest.approx(oracle.confidence_interval.high, abs=tolerance, rel=0)


def test_samples_of_a_ratio_are_resampled_independently() -> None:
    sample = np.random.default_rng(0).normal(10, 1, 20)
    interval = ratio_of_medians(sample, sample)
    assert interval.estimate == 1
    assert interval.low < 0.99 < 1.01 < interval.high


def test_a_ratio_without_noise_is_exact_and_the_same_samples_have_the_same_interval() -> None:
    assert ratio_of_medians(np.full(3, 6.0), np.full(2, 3.0)) == Interval(2, 2, 2)
    sample = np.random.default_rng(0).normal(10, 1, 20)
    assert ratio_of_medians(sample, sample + 1) == ratio_of_medians(sample, sample + 1)


@pytest.mark.parametrize("sample", [np.ones(1), np.ones(0), np.ones((2, 2))])
def test_samples_without_an_interval_are_refused(sample: Values) -> None:
    for samples in ((sample, np.ones(3)), (np.ones(3), sample)):
        with pytest.raises(ValueError, match="two values or more"):
            ratio_of_medians(*samples)
        with pytest.raises(ValueError, match="two values or more"):
            extrapolated(samples[0], samples[1], 2, 4, 24)
