"""Figures of the evaluation chapter, from the perplexity table alone."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from inferometer.plotting import COLOURS, MUTED, style

ZOOM_RATIO = 1.25


def _draw(axes: Axes, perplexity: pd.DataFrame, models: list[str], schemes: list[str]) -> None:
    for number, model in enumerate(models):
        rows = perplexity[perplexity["model"] == model].set_index("scheme").reindex(schemes).dropna(subset="ratio")
        shift = (number - (len(models) - 1) / 2) * 0.2
        places = [schemes.index(scheme) + shift for scheme in rows.index]
        spread = [rows["ratio"] - rows["ratio_low"], rows["ratio_high"] - rows["ratio"]]
        colour = COLOURS[number % len(COLOURS)]
        axes.errorbar(rows["ratio"], places, xerr=spread, fmt="o", color=colour, capsize=3, markersize=5, label=model)
    axes.axvline(1, color=MUTED, linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(schemes)), schemes)
    axes.set_ylim(len(schemes) - 0.5, -0.5)


def plot_perplexity(perplexity: pd.DataFrame, schemes: list[str]) -> Figure:
    """Perplexity ratio of every scheme with its paired interval: all on a logarithmic axis, and the mild ones enlarged.

    `schemes` gives the order from top to bottom.
    """
    models = sorted(perplexity["model"].unique())
    mild = perplexity[perplexity["ratio_high"] < ZOOM_RATIO]
    close = [scheme for scheme in schemes if scheme in set(mild["scheme"])]
    with style():
        figure, (whole, zoom) = plt.subplots(1, 2, figsize=(10, 1.2 + 0.42 * len(schemes)))
        _draw(whole, perplexity, models, schemes)
        whole.set_xscale("log")
        whole.set_title("All schemes")
        whole.set_xlabel("perplexity over that of the float model (logarithmic)")
        whole.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        _draw(zoom, mild, models, close)
        zoom.set_title(f"Schemes below {ZOOM_RATIO:g}x")
        zoom.set_xlabel("perplexity over that of the float model")
        if len(models) > 1:
            whole.legend(fontsize=7)
    return figure
