"""Figures of the fundamentals chapter, from its tables alone."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferometer.plotting import COLOURS, MUTED, error_bars, logarithmic_x, logarithmic_y, style

LABELS = {"last": "last layer replaced", "all": "all layers replaced"}
AXES = {"new_tokens": "tokens written", "prompt_tokens": "tokens of the prompt"}
DB_PER_BIT = 6.02  # 20 log10(2): a bit more halves the step of a grid


def plot_digits(accuracy: pd.DataFrame) -> Figure:
    """Accuracy with its interval, and the signal-to-noise ratio of the logits, against bits. Takes DIGIT_ACCURACY."""
    bits = sorted(accuracy["bits"].unique(), reverse=True)
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
        left.axhline(
            100 * accuracy["float_accuracy"].iloc[0], color=MUTED, linewidth=0.9, linestyle="--", label="float"
        )
        for number, (which, label) in enumerate(LABELS.items()):
            rows = accuracy[accuracy["replaced"] == which].set_index("bits").loc[bits]
            places = [place + 0.06 * (2 * number - 1) for place in range(len(bits))]
            percent = 100 * rows[["accuracy", "accuracy_low", "accuracy_high"]]
            reach = [percent["accuracy"] - percent["accuracy_low"], percent["accuracy_high"] - percent["accuracy"]]
            left.errorbar(places, percent["accuracy"], reach, fmt="o-", ms=4, lw=1.2, capsize=3, label=label)
            right.plot(rows.index, rows["sqnr_db"], "o-", ms=4, lw=1.2, label=label)
        high = accuracy[accuracy["replaced"] == "last"].set_index("bits")["sqnr_db"]
        line = high[bits[0]] - DB_PER_BIT * (bits[0] - pd.Series(bits))
        right.plot(bits, line, color=MUTED, lw=0.9, ls="--", label=f"{DB_PER_BIT} dB a bit")
        left.set_xticks(range(len(bits)), [str(width) for width in bits])
        left.set_ylim(0, 100)
        left.set_title("Digits read right")
        left.set_xlabel("bits of weights and inputs")
        left.set_ylabel("share of test images in percent")
        right.set_xticks(bits)
        right.invert_xaxis()
        right.set_title("Signal over rounding noise in the logits")
        right.set_xlabel("bits of weights and inputs")
        right.set_ylabel("SQNR in decibels")
        left.legend(fontsize=8, loc="lower left")
        right.legend(fontsize=8, loc="lower left")
    return figure


def _draw_latency(axes: Axes, rows: pd.DataFrame, varied: str) -> None:
    for colour, (cache, label) in zip(
        (COLOURS[1], COLOURS[0]), ((False, "without cache"), (True, "with cache")), strict=True
    ):
        arm = rows[rows["cache"] == cache].sort_values(varied)
        middle, reach = arm["latency_ms"], error_bars(arm)
        axes.errorbar(arm[varied], middle, reach, fmt="o-", ms=4, lw=1.2, capsize=3, color=colour, label=label)
    for row in rows[rows["cache"]].itertuples():
        place = (getattr(row, varied), row.latency_ms)
        axes.annotate(f"{row.speedup:.1f}×", place, (0, -13), textcoords="offset points", ha="center", fontsize=7)
    logarithmic_x(axes, sorted(rows[varied].unique()), f"{AXES[varied]} (logarithmic)")
    logarithmic_y(axes)


def plot_decoder(speed: pd.DataFrame) -> Figure:
    """Median latency with quartiles, with and without the cache, against either length. Takes DECODER_SPEED."""
    with style():
        figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
        for axes, varied in zip(panels, AXES, strict=True):
            rows = speed[speed["varied"] == varied]
            _draw_latency(axes, rows, varied)
            other = "prompt_tokens" if varied == "new_tokens" else "new_tokens"
            fixed = {"prompt_tokens": "after a prompt of {}", "new_tokens": "{} tokens written"}[other]
            axes.set_title(f"{AXES[varied].capitalize()}: {fixed.format(rows[other].iloc[0])}")
        panels[0].set_ylabel("milliseconds (logarithmic)")
        panels[0].margins(y=0.12)
        panels[0].legend(fontsize=8, loc="upper left")
    return figure
