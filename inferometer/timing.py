"""Timing on a machine that may not be one's own: arms take turns, and each sample says how busy others were."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import psutil

from inferometer.device import Device
from inferometer.samples import SAMPLE

# The system counts processor time in ticks of 10 ms, so a shorter sample could not tell whose it is.
LEAST_SAMPLE_S = 0.1
LARGEST_FOREIGN_LOAD = 0.2
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")

Arm = TypeVar("Arm")


@dataclass(frozen=True)
class Sample(Generic[Arm]):
    """One timing of an arm: the mean of so many `calls` in a row, and who else was at work meanwhile.

    `foreign_load` is the share of all processors' time that went to other processes, or to other guests of the host.
    """

    arm: Arm
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


def _sample(arm: Arm, work: Callable[[], object], repetition: int, device: Device) -> Sample[Arm]:
    calls, wall = 0, 0.0
    busy, cpu, start = busy_s(), time.process_time(), time.perf_counter()
    while not calls or wall < LEAST_SAMPLE_S:  # a process that is kept waiting here still calls once
        work()
        device.synchronize()
        calls += 1
        wall = time.perf_counter() - start
    own = time.process_time() - cpu
    foreign = max(0.0, busy_s() - busy - own) / (wall * (psutil.cpu_count() or 1))
    return Sample(arm, repetition, calls, 1000 * wall / calls, 1000 * own / calls, min(1.0, foreign))


def interleaved(arms: Mapping[Arm, Callable[[], object]], repetitions: int, device: Device) -> Iterator[Sample[Arm]]:
    """Time every arm so many times; all take their turn before any has its next, in reverse order every second time.

    So a machine that slows down or speeds up does the same to all. A sample lasts a tenth of a second or longer, by as
    many calls as that takes. What is called must have been warmed up.
    """
    order = list(arms)
    for repetition in range(repetitions):
        for arm in order if repetition % 2 == 0 else reversed(order):
            yield _sample(arm, arms[arm], repetition, device)
