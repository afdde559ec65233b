"""Perplexity by what a cache keeps and by stretches of the text, paired text by text. Needs no torch."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inferometer.intervals import Interval, bootstrap, bootstrap_mean

FULL, PLAIN = "full", "window"  # the arms that others are held against
FIRST_TOKENS = 16  # right after the first eviction
QUARTERS = 4  # of a window


def kept(window: int, sinks: int | None) -> str:
    """What an arm keeps, for readers: a window's tokens, of which some are sinks; None for an arm without a window."""
    if sinks is None:
        return "everything"
    return f"the latest {window - sinks}" + (f" and the first {sinks}" if sinks else "")


def _spans(window: int, last: int) -> Iterator[tuple[str, int, int]]:
    """The stretches of a text whose last predicted token has position `last`, with their first and last positions.

    The token at position p is predicted after p tokens were read, so up to p = window nothing has been evicted.
    """
    yield "before", 1, window
    yield "first", window + 1, window + FIRST_TOKENS
    yield "after", window + 1, last
    step = window // QUARTERS
    for first in range(1, last + 1, step):
        yield "quarter", first, min(first + step - 1, last)


def _named(name: str, found: Interval | None) -> dict[str, float | None]:
    values = (None,) * 3 if found is None else (found.estimate, found.low, found.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _perplexity(nll: NDArray[np.float64]) -> Interval:
    """The perplexity of texts by their mean nll [texts]."""
    return bootstrap(nll[:, None], lambda means: np.exp(means[..., 0]))


def summarize_eviction(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The EVICTED table of the EVICTION tables, by model."""
    rows: list[dict[str, Any]] = []
    for model, table in tables.items():
        scores = table.pivot_table("nll", index="text", columns=["arm", "position"], dropna=False)
        window, last = int(table["window_tokens"].iloc[0]), int(table["position"].max())
        for arm, own in table.groupby("arm", sort=False):
            entry = own.iloc[0]
            for span, first, end in _spans(window, last):
                mine, full, plain = (
                    scores[name].loc[:, first:end].to_numpy(dtype=np.float64) for name in (arm, FULL, PLAIN)
                )
                measured, beside = bool(pd.isna(entry.reason)), arm not in (FULL, PLAIN)
                means = mine.mean(axis=1)
                rows.append(
                    {
                        "model": model,
                        "arm": arm,
                        "sink_tokens": entry.sink_tokens,
                        "window_tokens": window,
                        "span": span,
                        "first_position": first,
                        "last_position": end,
                        "texts": len(mine),
                        **_named("perplexity", _perplexity(means) if measured else None),
                        **_named("increase", bootstrap_mean(means - full.mean(axis=1)) if measured else None),
                        **_named("saved", bootstrap_mean(plain.mean(axis=1) - means) if measured and beside else None),
                        "difference": np.abs(mine - full).max() if measured else None,
                        "reason": None if measured else entry.reason,
                    }
                )
    return pd.DataFrame(rows).astype({"sink_tokens": "Int64"})
