"""The figure of what evicting tokens costs, from its tables alone."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferometer.attention.eviction_summary import FULL, kept
from inferometer.plotting import COLOURS, MUTED, logarithmic_y, style

SHOWN_BEFORE, SHOWN_AFTER = 8, 32  # tokens around the first eviction


def _draw_quarters(axes: Axes, quarters: pd.DataFrame, quantity: str, colours: Mapping[str, str]) -> None:
    """A quantity against position, a line with its interval for every arm that has it."""
    for arm, colour in colours.items():
        rows = quarters[quarters["arm"] == arm].sort_values("first_position")
        middle = (rows["first_position"] + rows["last_position"]) / 2
        low, high = (rows[f"{quantity}_{end}"] for end in ("low", "high"))
        axes.fill_between(middle, low, high, color=colour, alpha=0.15, lw=0)
        axes.plot(middle, rows[quantity], "o-", ms=3, lw=1.4, color=colour)
    axes.set_xlim(left=0)
    axes.set_xlabel("tokens read")


def _draw_beginning(axes: Axes, table: pd.DataFrame, window: int, colours: Mapping[str, str]) -> None:
    """The mean increase of every token's nll around the first eviction."""
    near = table[table["position"].between(window - SHOWN_BEFORE + 1, window + SHOWN_AFTER)]
    scores = near.pivot_table("nll", index="text", columns=["arm", "position"])
    for arm, colour in colours.items():
        increase: Any = (scores[arm] - scores[FULL]).mean()
        axes.plot(increase.index - window, increase, "o-", ms=3, lw=1, color=colour)
    axes.set_xlabel("tokens evicted")


def plot_eviction(evicted: pd.DataFrame, table: pd.DataFrame, model: str) -> Figure:
    """Perplexity and its increase by quarters of a window, and token by token. Takes EVICTED and EVICTION.

    Arms that could not be measured are left out; the dashed line is where the window is full.
    """
    own = evicted[(evicted["model"] == model) & evicted["reason"].isna()]
    own = own.sort_values("sink_tokens", na_position="first")
    window, quarters = int(own["window_tokens"].iloc[0]), own[own["span"] == "quarter"]
    arms: list[Any] = list(own.drop_duplicates("arm").itertuples())
    colours = {row.arm: colour for row, colour in zip(arms, COLOURS, strict=False)}
    increases = {arm: colour for arm, colour in colours.items() if arm != FULL}
    with style():
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11.5, 3.6), width_ratios=(4, 4, 3))
        _draw_quarters(left, quarters, "perplexity", colours)
        logarithmic_y(left)
        left.set_title("Perplexity")
        _draw_quarters(middle, quarters, "increase", increases)
        middle.set_title("Above the full cache (nats a token)")
        _draw_beginning(right, table, window, increases)
        right.set_title("The same where eviction begins")
        for axes, place in ((left, window), (middle, window), (right, 0)):
            axes.axvline(place, color=MUTED, lw=1, ls="--")
        for row in arms:
            sinks = None if pd.isna(row.sink_tokens) else int(row.sink_tokens)
            left.plot([], [], "o-", ms=3, lw=1.4, color=colours[row.arm], label=kept(window, sinks))
        figure.legend(title="tokens kept", loc="outside lower center", ncols=len(arms), fontsize=8)
    return figure
