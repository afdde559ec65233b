"""Repetition: passages that were written before, and tails that say the same over and over."""

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_PERIOD = 64  # tokens
LEAST_TURNS = 3
PASSAGE_TOKENS = 8


@dataclass(frozen=True)
class Loop:
    """A tail that repeats: the place of its first token, and after how many tokens each comes again."""

    start: int
    period: int


def find_loop(tokens: Sequence[int]) -> Loop | None:
    """The longest tail that goes through one sequence of tokens three times or more, by its smallest period.

    A tail has the period p when each of its tokens but the first p is the one p places before; its last turn may be cut
    short. Periods of up to 64 tokens are tried.
    """
    found: Loop | None = None
    for period in range(1, min(LONGEST_PERIOD, len(tokens) // LEAST_TURNS) + 1):
        start = len(tokens) - period
        while start > 0 and tokens[start - 1] == tokens[start - 1 + period]:
            start -= 1
        if len(tokens) - start >= LEAST_TURNS * period and (found is None or start < found.start):
            found = Loop(start, period)
    return found


def repeated(tokens: Sequence[int]) -> list[bool]:
    """Of every token whether it and the seven before it stand in the same order earlier in the sequence.

    The share of such tokens is the rate of repeated 8-grams (Welleck et al. 2020), which also sees what comes back in
    another place, or with something new between.
    """
    seen: set[tuple[int, ...]] = set()
    found: list[bool] = []
    for end in range(1, len(tokens) + 1):
        passage = tuple(tokens[max(0, end - PASSAGE_TOKENS) : end])
        found.append(len(passage) == PASSAGE_TOKENS and passage in seen)
        seen.add(passage)
    return found
