"""The figure of what evicting tokens costs, from its tables alone."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferometer.attention.eviction_summary import FULL
from inferometer.plotting import COLOURS, MUTED, logarithmic_y, style

SHOWN_BEFORE, SHOWN_AFTER = 8, 32  # tokens around the first eviction


def _draw_perplexity(axes: Axes, own: pd.DataFrame, colours: dict[str, str]) -> None:
    quarters = own[own["span"] == "quarter"]
    for arm, colour in colours.items():
        rows = quarters[quarters["arm"] == arm].sort_values("first_position")
        middle = (rows["first_position"] + rows["last_position"]) / 2
        axes.fill_between(middle, rows["perplexity_low"], rows["perplexity_high"], color=colour, alpha=0.15, lw=0)
        axes.plot(middle, rows["perplexity"], "o-", ms=3, lw=1.4, color=colour, label=arm)
    logarithmic_y(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel("tokens read")
    axes.set_ylabel("perplexity")


def _draw_beginning(axes: Axes, table: pd.DataFrame, window: int, colours: dict[str, str]) -> None:
    near = table[table["position"].between(window - SHOWN_BEFORE + 1, window + SHOWN_AFTER)]
    scores = near.pivot_table("nll", index="text", columns=["arm", "position"])
    for arm, colour in colours.items():
        if arm != FULL:
            increase = (scores[arm] - scores[FULL]).mean()
            axes.plot(increase.index - window, increase, "o-", ms=3, lw=1, color=colour)
    axes.axhline(0, color=colours[FULL], lw=1.4)
    axes.set_xlabel("tokens evicted")
    axes.set_ylabel("nll above that of the full cache (nats)")


def plot_eviction(evicted: pd.DataFrame, table: pd.DataFrame, model: str) -> Figure:
    """Perplexity by quarters of a window, and token by token where eviction begins. Takes EVICTED and EVICTION.

    Arms that could not be measured are left out; the dashed line is where the window is full.
    """
    own = evicted[(evicted["model"] == model) & evicted["reason"].isna()]
    own = own.sort_values("sink_tokens", na_position="first")
    colours = dict(zip(dict.fromkeys(own["arm"]), COLOURS, strict=False))
    window = int(own["window_tokens"].iloc[0])
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(3, 2))
        _draw_perplexity(left, own, colours)
        left.set_title(f"By position, with 95 % intervals (window: {window} tokens)")
        _draw_beginning(right, table, window, colours)
        right.set_title("Where eviction begins")
        for axes, place in ((left, window), (right, 0)):
            axes.axvline(place, color=MUTED, lw=1, ls="--")
        figure.legend(loc="outside lower center", ncols=len(colours), fontsize=8)
    return figure
