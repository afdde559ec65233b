"""Policies: how many bits of the cache a token gets, by what is known of it when it is written.

What is known comes from the model that writes: how unsure it was of the token, how much it makes of it, where the token
stands. Bits are handed out within a budget, so that policies can be compared at the same average.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq

from inferometer.errors import InferometerError
from inferometer.kv_cache.cache import Packing

Feature = Literal["entropy", "rarity", "saliency", "received_attention", "recency", "sinks", "random"]

HISTORY = 512  # tokens whose priorities thresholds are taken from
TOLERANCE = 0.005  # of the budget, by which the average may be off
STEEPEST = 50.0  # tilt of shares, far beyond what any mean within the widths needs


@dataclass(frozen=True)
class Policy:
    """How a cache stores what it holds.

    Either all tokens on the same bits (`packing.bits`), or each on one of `widths`, by a `feature` and so that their
    average is `average_bits`; or in the hands of a `library`, on `library_bits`; or, with nothing of these, in the
    model's dtype. Of the feature `sinks` the first `sink_tokens` get the largest width.
    """

    name: str
    packing: Packing | None = None
    feature: Feature | None = None
    widths: tuple[int, ...] = ()
    average_bits: float | None = None
    sink_tokens: int = 4
    seed: int = 0
    library: Literal["quanto"] | None = None
    library_bits: int | None = None

    @staticmethod
    def of(name: str, entry: Mapping[str, Any]) -> "Policy":
        """The policy that a validated configuration entry describes."""
        if not entry:
            return Policy(name)
        if "library" in entry:
            return Policy(name, library=entry["library"], library_bits=entry["bits"])
        if "feature" not in entry:
            return Policy(name, Packing(**entry))
        stored = {key: entry[key] for key in ("keys", "group_size") if key in entry}
        own = {key: entry[key] for key in ("feature", "average_bits", "sink_tokens", "seed") if key in entry}
        return Policy(name, Packing(**stored), widths=tuple(sorted(entry["widths"])), **own)

    @property
    def bits(self) -> float | None:
        """Bits of a code, on average; None where nothing is rounded."""
        if self.library_bits is not None:
            return self.library_bits
        return self.average_bits if self.feature else (self.packing.bits if self.packing else None)


def shares(widths: Sequence[int], average: float) -> list[float]:
    """Shares of tokens by width whose mean is `average`, as even as it lets them be.

    Of all such distributions it is the one of largest entropy: proportional to exp(t * width) for some t.
    Raises InferometerError when no mixture of the widths has that mean.
    """
    low, high = min(widths), max(widths)
    if not low <= average <= high:
        raise InferometerError(f"an average of {average} bits can't be met by widths of {low} to {high} bits.")
    if average in (low, high):
        return [float(width == average) for width in widths]
    offsets = np.array(widths) - average

    def tilted(tilt: float) -> Any:
        weights = np.exp(tilt * offsets - np.max(tilt * offsets))
        return weights / weights.sum()

    tilt = brentq(lambda tilt: float(tilted(tilt) @ offsets), -STEEPEST, STEEPEST)
    return [float(share) for share in tilted(tilt)]


@dataclass
class Budget:
    """Hands out bits to tokens by their priorities, so that the average stays at `average_bits`.

    The `thresholds` between widths are quantiles of the priorities seen so far. Whatever comes, the sum of bits is off
    by at most half the range of the widths, or 0.5 % where that is more, each time tokens are stored.
    Raises InferometerError when no mixture of the widths has that average.
    """

    widths: Sequence[int]
    average_bits: float
    tokens: int = 0
    spent_bits: float = 0.0
    thresholds: list[float] = field(default_factory=list)
    _seen: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Find the shares of the widths."""
        self.widths = sorted(self.widths)
        self._shares_below = np.cumsum(shares(self.widths, self.average_bits))[:-1]

    def bits(self, priorities: Sequence[float]) -> list[int]:
        """Bits of the next tokens, which are stored together."""
        if not priorities:
            return []
        self._seen = [*self._seen, *priorities][-HISTORY:]
        ordered = sorted(self._seen)
        last = len(ordered) - 1
        self.thresholds = [ordered[min(int(share * len(ordered)), last)] for share in self._shares_below]
        wanted = [self.widths[bisect_right(self.thresholds, priority)] for priority in priorities]
        given = self._within(wanted, sorted(range(len(wanted)), key=lambda index: priorities[index]))
        self.tokens += len(given)
        self.spent_bits += sum(given)
        return given

    def _within(self, bits: list[int], cheapest_first: Sequence[int]) -> list[int]:
        """The bits, with some tokens moved to other widths where the sum would leave the budget.

        The least wanted are lowered first, the most wanted raised first.
        """
        due = self.average_bits * (self.tokens + len(bits))
        slack = max((self.widths[-1] - self.widths[0]) / 2, TOLERANCE * due)
        for step, order in ((-1, cheapest_first), (1, cheapest_first[::-1])):
            last = self.widths[0 if step < 0 else -1]
            for index in order:
                while step * (due - self.spent_bits - sum(bits)) > slack and bits[index] != last:
                    bits[index] = self.widths[self.widths.index(bits[index]) + step]
        return bits
