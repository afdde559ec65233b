"""Timing on a machine that may not be one's own: arms take turns, and each sample says how busy others were."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import psutil

from inferometer.device import Device, Mark
from inferometer.samples import SAMPLE

# The system counts processor time in ticks of 10 ms, so a shorter sample could not tell whose it is.
LEAST_SAMPLE_S = 0.1
LARGEST_FOREIGN_LOAD = 0.2
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
STEADY = 0.05  # an arm is warm when a call is no faster than the fastest before by more than this share
LONGEST_WARM_UP = 5  # calls

Arm = TypeVar("Arm")
Phase = tuple[str, int]  # what has just ended, and of how many calls it was
Work = Callable[[], Iterator[Phase]]  # does its work phase by phase, and says so after each


WHOLE = ""  # the phase of work that is timed as a whole
READY: Phase = (WHOLE, 0)  # what came before was making ready, and is not timed


@dataclass(frozen=True)
class Enough:
    """When an arm has been timed enough: after so many samples and so many seconds, contaminated ones not counted.

    Contaminated samples are repeated, but no more of them than `repetitions`.
    """

    repetitions: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Sample(Generic[Arm]):
    """One timing of an arm's phase: the mean of so many `calls` in a row, and who else was at work meanwhile.

    `foreign_load` is the share of all processors' time that went to other processes, or to other guests of the host.
    """

    arm: Arm
    phase: str
    repetition: int
    calls: int
    wall_ms: float
    cpu_ms: float
    foreign_load: float

    @property
    def contaminated(self) -> bool:
        """Whether others were so busy that the time can't be believed."""
        return self.foreign_load > LARGEST_FOREIGN_LOAD

    @property
    def columns(self) -> dict[str, float]:
        """The sample as the columns SAMPLE; those of the arm are for who made it."""
        return {column.name: getattr(self, column.name) for column in SAMPLE}


def busy_s() -> float:
    """Seconds that all processors together have been busy since the machine started, whoever kept them so."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in BUSY))


class ForeignLoad:
    """How much of all processors' time has gone elsewhere since the watch began."""

    def __init__(self) -> None:
        self._busy, self._cpu, self._start = busy_s(), time.process_time(), time.perf_counter()

    @property
    def share(self) -> float:
        """The share so far, from 0 to 1."""
        own, wall = time.process_time() - self._cpu, time.perf_counter() - self._start
        foreign = max(0.0, busy_s() - self._busy - own) / (wall * (psutil.cpu_count() or 1))
        return min(1.0, foreign)


def phases_of(arm: Arm, work: Work, repetition: int, device: Device) -> list[Sample[Arm]]:
    """A sample of each phase of one run of `work`; the device is waited for once, at the end."""
    watch = ForeignLoad()
    marks: list[tuple[Phase, Mark, float]] = [(READY, device.mark(), time.process_time())]
    marks += [(phase, device.mark(), time.process_time()) for phase in work()]
    device.synchronize()
    foreign = watch.share
    return [
        Sample(
            arm,
            name,
            repetition,
            calls,
            device.milliseconds_between(begin, end) / calls,
            1000 * (cpu - cpu_before) / calls,
            foreign,
        )
        for (_, begin, cpu_before), ((name, calls), end, cpu) in pairwise(marks)
        if calls
    ]


def until_long_enough(call: Callable[[], object], device: Device) -> Work:
    """A call as work of one phase, repeated until it has lasted a tenth of a second."""

    def work() -> Iterator[Phase]:
        calls, start = 0, time.perf_counter()
        while not calls or time.perf_counter() - start < LEAST_SAMPLE_S:  # one call even where it is kept waiting
            call()
            device.synchronize()
            calls += 1
        yield WHOLE, calls

    return work


def _is_enough(samples: list[list[Sample[Arm]]], enough: Enough) -> bool:
    clean = [turn for turn in samples if not turn[0].contaminated]
    seconds = sum(sample.wall_ms * sample.calls for turn in clean for sample in turn) / 1000
    if len(samples) - len(clean) > enough.repetitions:
        return True
    return len(clean) >= enough.repetitions and seconds >= enough.seconds


def interleaved_phases(arms: Mapping[Arm, Work], enough: Enough, device: Device) -> Iterator[Sample[Arm]]:
    """Time the phases of every arm's work; all take their turn before any has its next, in reverse order every
    second time, until each has been timed enough.

    So a machine that slows down or speeds up does the same to all. What is called must have been warmed up.
    """
    taken: dict[Arm, list[list[Sample[Arm]]]] = {arm: [] for arm in arms}
    backwards = False
    while waiting := [arm for arm in arms if not _is_enough(taken[arm], enough)]:
        for arm in reversed(waiting) if backwards else waiting:
            turn = phases_of(arm, arms[arm], len(taken[arm]), device)
            taken[arm].append(turn)
            yield from turn
        backwards = not backwards


def interleaved(arms: Mapping[Arm, Callable[[], object]], repetitions: int, device: Device) -> Iterator[Sample[Arm]]:
    """Time every arm's call as a whole, in turns like `interleaved_phases`.

    A sample lasts a tenth of a second or longer, by as many calls as that takes.
    """
    works = {arm: until_long_enough(call, device) for arm, call in arms.items()}
    return interleaved_phases(works, Enough(repetitions), device)


def warm_up(call: Callable[[], object], device: Device) -> None:
    """Call until it gets no faster, at least twice: memory and kernels are ready afterwards."""
    fastest = float("inf")
    for _ in range(LONGEST_WARM_UP):
        start = time.perf_counter()
        call()
        device.synchronize()
        seconds = time.perf_counter() - start
        if seconds > (1 - STEADY) * fastest:
            return
        fastest = min(fastest, seconds)
