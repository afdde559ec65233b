"""Timing of the hand-written decoder: whose turn it is, who else was at work, and what the samples come to."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pandas as pd
import pytest

from inferometer import timing
from inferometer.device import Device
from inferometer.fundamentals import figures
from inferometer.fundamentals.checks import CHECKS
from inferometer.fundamentals.latency import Arm, arms, context_for, measure
from inferometer.fundamentals.measured_decoder import new_decoder
from inferometer.fundamentals.summary import summarize_digits, summarize_latency
from inferometer.fundamentals.tables import DECODER_LATENCY, DECODER_SPEED
from inferometer.plotting import save
from inferometer.report.fundamentals import Compared, said_of_checks, said_of_digits, said_of_speed
from inferometer.tables import write_table
from inferometer.timing import READY, Enough, interleaved, interleaved_phases, warm_up
from tests.synthetic import decoder_checks, decoder_latency, digits

CPU = Device("cpu", "a processor")


@pytest.fixture
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST_SAMPLE_S", 1e-4)


@pytest.fixture
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """In short samples a single tick of the system's clock passes for foreign load, and the sample is repeated."""
    monkeypatch.setattr(timing, "busy_s", lambda: 0.0)


@pytest.mark.usefixtures("short_samples", "nobody_else")
def test_arms_take_turns_in_reverse_order_every_second_time() -> None:
    order: list[str] = []
    work = {name: lambda name=name: order.append(name) for name in "abc"}
    samples = list(interleaved(work, 3, CPU))
    assert [sample.arm for sample in samples] == list("abccbaabc")
    assert [sample.repetition for sample in samples] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    turns = [name for place, name in enumerate(order) if place == 0 or order[place - 1] != name]
    assert "".join(turns) == "abcbabc"


class Clock:
    """A clock that only work moves, on a machine where nobody else works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls = 0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing, "busy_s", lambda: 0.0)

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.calls += 1


def test_a_sample_is_the_mean_of_as_many_calls_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    [sample] = interleaved({"a": lambda: clock.work(0.03)}, 1, CPU)
    assert sample.calls == clock.calls == 4
    assert sample.wall_ms == pytest.approx(30)


def test_a_process_that_is_kept_waiting_still_calls_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    [sample] = interleaved({"a": lambda: clock.work(5.0)}, 1, CPU)
    assert (sample.calls, sample.wall_ms) == (1, 5000)


def test_phases_are_timed_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def work() -> Iterator[tuple[str, int]]:
        clock.work(2.0)
        yield "prefill", 1
        for _ in range(4):
            clock.work(0.5)
        yield "decode", 4

    samples = list(interleaved_phases({"a": work}, Enough(2), CPU))
    found = [(sample.phase, sample.repetition, sample.calls, sample.wall_ms) for sample in samples]
    assert found == [
        ("prefill", 0, 1, 2000),
        ("decode", 0, 4, 500),
        ("prefill", 1, 1, 2000),
        ("decode", 1, 4, 500),
    ]


def test_making_ready_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def work() -> Iterator[tuple[str, int]]:
        clock.work(7.0)
        yield READY
        clock.work(2.0)
        yield "prefill", 1

    [sample] = interleaved_phases({"a": work}, Enough(1), CPU)
    assert (sample.phase, sample.wall_ms) == ("prefill", 2000)


def test_arms_go_on_until_both_a_count_and_a_time_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def lasting(seconds: float) -> Iterator[tuple[str, int]]:
        clock.work(seconds)
        yield "", 1

    arms = {seconds: partial(lasting, seconds) for seconds in (0.25, 2.0)}
    samples = list(interleaved_phases(arms, Enough(3, seconds=2.0), CPU))
    assert [sum(sample.arm == arm for sample in samples) for arm in arms] == [8, 3]


def test_contaminated_samples_are_repeated_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter([0.5, 0.0, 0.5, 0.0, 0.5, *[0.0] * 9])
    monkeypatch.setattr(timing.ForeignLoad, "share", property(lambda _: next(loads)))

    def work() -> Iterator[tuple[str, int]]:
        yield "", 1

    marked = [sample.contaminated for sample in interleaved_phases({"a": work}, Enough(4), CPU)]
    assert marked == [True, False, True, False, True, False, False], "four clean ones in the end"
    monkeypatch.setattr(timing.ForeignLoad, "share", property(lambda _: 0.9))
    assert len(list(interleaved_phases({"a": work}, Enough(4), CPU))) == 5, "one more than were wanted, then no more"


def test_what_is_called_gets_warm_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    durations = iter([5.0, 2.0, 1.0, 0.99, 0.5])
    warm_up(lambda: clock.work(next(durations)), CPU)
    assert clock.calls == 4, "the fourth was no faster than the third"
    clock.calls = 0
    halving = iter([2.0**-power for power in range(20)])
    warm_up(lambda: clock.work(next(halving)), CPU)
    assert clock.calls == timing.LONGEST_WARM_UP


@pytest.mark.usefixtures("short_samples")
@pytest.mark.parametrize(("growth", "contaminated"), [(0.0, False), (100.0, True)])
def test_a_sample_during_which_others_worked_is_marked(
    growth: float, contaminated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: Iterator[float] = count(1000.0, growth)
    monkeypatch.setattr(timing, "busy_s", lambda: next(busy))
    sample = next(interleaved({"a": lambda: None}, 1, CPU))
    assert sample.contaminated is contaminated
    assert 0 <= sample.foreign_load <= 1


def test_the_system_counts_busy_time() -> None:
    before = timing.busy_s()
    assert timing.busy_s() >= before > 0


def test_both_lengths_are_varied_with_and_without_the_cache() -> None:
    every = list(arms([10, 1000]))
    assert len(every) == len(set(every)) == 8
    assert Arm("new_tokens", 10, 1000, True) in every
    assert Arm("prompt_tokens", 1000, 20, False) in every
    assert context_for([10, 1000]) == 1020
    assert context_for([3]) == 23, "the longer of both kinds counts"


@pytest.mark.usefixtures("short_samples")
def test_every_arm_has_its_samples(tmp_path: Path) -> None:
    table = measure(new_decoder(context_for([2, 3])), [2, 3], 2, CPU)
    write_table(DECODER_LATENCY, table, tmp_path / "latency.parquet")
    by_arm = table.groupby(["varied", "prompt_tokens", "new_tokens", "cache"])["contaminated"]
    assert len(by_arm) == 2 * 2 * 2
    assert (by_arm.size() >= 2).all()
    assert (by_arm.size() - by_arm.sum() <= 2).all(), "only contaminated samples are taken again"
    assert (table["wall_ms"] > 0).all()


def test_contaminated_samples_are_left_out_where_enough_are_clean(tmp_path: Path) -> None:
    summary = summarize_latency(decoder_latency())
    write_table(DECODER_SPEED, summary, tmp_path / "speed.parquet")
    assert summary["samples"].eq(2).all()
    assert summary["contaminated"].eq(0).all()
    rows = summary.set_index(["varied", "prompt_tokens", "new_tokens", "cache"])
    assert rows.loc[("new_tokens", 10, 1000, True), "latency_ms"] == 1000
    assert rows.loc[("new_tokens", 10, 1000, False), "latency_ms"] == 11_000
    assert rows.loc[("new_tokens", 10, 1000, True), "speedup"] == pytest.approx(11)
    assert rows.loc[("prompt_tokens", 1000, 20, True), "cpu_speedup"] == pytest.approx(11)
    assert rows.loc[("prompt_tokens", 1000, 20, False), "speedup"] == 1


def test_contaminated_samples_are_taken_and_counted_where_there_is_nothing_better() -> None:
    summary = summarize_latency(decoder_latency().assign(contaminated=lambda table: table["repetition"] > 0))
    assert summary["samples"].eq(3).all()
    assert summary["contaminated"].eq(2).all()


def test_quartiles_and_deviation_are_those_of_the_samples() -> None:
    table = decoder_latency().assign(contaminated=False)
    table["wall_ms"] = table["repetition"].map({0: 1.0, 1: 2.0, 2: 5.0})
    row = summarize_latency(table).iloc[0]
    assert (row.latency_ms, row.latency_ms_q25, row.latency_ms_q75) == (2.0, 1.5, 3.5)
    assert row.latency_ms_mean == pytest.approx(8 / 3)
    assert row.latency_ms_std == pytest.approx(pd.Series([1.0, 2.0, 5.0]).std())


def test_figures_are_drawn_and_are_the_same_every_time(tmp_path: Path) -> None:
    accuracy, speed = summarize_digits(digits()), summarize_latency(decoder_latency())
    for file in ("one", "two"):
        save(figures.plot_digits(accuracy), tmp_path / f"digits-{file}.svg", 60)
        save(figures.plot_decoder(speed), tmp_path / f"decoder-{file}.svg", 60)
    for name in ("digits", "decoder"):
        assert (tmp_path / f"{name}-one.svg").read_bytes() == (tmp_path / f"{name}-two.svg").read_bytes()


def test_accuracy_is_drawn_against_bits_and_latency_on_logarithmic_axes() -> None:
    accuracy, noise = figures.plot_digits(summarize_digits(digits())).axes
    assert [label.get_text() for label in accuracy.get_xticklabels()] == ["8", "4", "2"]
    assert noise.get_xlim()[0] > noise.get_xlim()[1]
    for axes in figures.plot_decoder(summarize_latency(decoder_latency())).axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert [text.get_text() for text in axes.texts] == ["1.1×", "11.0×"]


# --- sentences ---------------------------------------------------------------------------------------------------


def test_what_bits_do_is_said_as_the_intervals_allow() -> None:
    accuracy = summarize_digits(digits())
    last, every, verdict = said_of_digits(accuracy, "They say so.")
    assert last.startswith("With the last layer on codes, 8 and 4 bits make no difference")
    assert "; 2 bits change the accuracy by −" in last
    assert every.startswith("With all layers on codes, ")
    assert verdict.startswith("They say so. Our evidence bears that out for 8 bits: 90.0 % after against 90.0 % before")


def test_evidence_against_a_study_is_said() -> None:
    accuracy = summarize_digits(digits()).assign(change_high=-0.1)
    last, _, verdict = said_of_digits(accuracy, "They say so.")
    assert "no number of bits is without a difference; 8 bits change" in last
    assert "contradicts that" in verdict


def test_a_check_that_fails_is_said_by_name() -> None:
    checks = decoder_checks()
    assert said_of_checks(checks).startswith(f"All {2 * len(CHECKS)} checks hold: the largest difference is 1.0·10⁻⁶")
    fails = checks["check"] == "causality"
    said = said_of_checks(checks.assign(holds=~fails, difference=fails.map({True: 0.5, False: 1e-6})))
    assert said.startswith("2 of 8 checks fail (causality): the largest difference is 0.50 (causality)")
    assert said.endswith("Nothing below can be relied on.")


def test_a_busy_machine_and_other_studies_are_told() -> None:
    compared = [Compared(10, [1.0, None], 1.2, 1.2, 1.1, 1.1), Compared(100, [2.0, None], 1.9, 1.9, 2.0, 2.0)]
    speed = summarize_latency(decoder_latency())
    gains, beside = said_of_speed(speed, ["one", "two"], compared)
    assert gains == ("The cache makes writing 10 tokens 1.1 times as fast and writing 1,000 tokens 11 times.")
    assert beside.endswith("0.95 to 1.2 times those of one: our evidence bears theirs out.")
    far = [Compared(10, [1.0], 5.0, 5.0, 1.1, 1.1)]
    _, busy, against = said_of_speed(speed.assign(contaminated=1), ["one"], far)
    assert busy.startswith("Other work ran on the machine during 8 of 16 samples")
    assert against.endswith("our evidence contradicts theirs.")
