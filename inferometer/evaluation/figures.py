"""Figures of the evaluation chapter, from its tables alone."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from inferometer.evaluation.schemes_summary import pareto
from inferometer.layers import decoder_layer_index
from inferometer.plotting import COLOURS, MUTED, style

ZOOM_RATIO = 1.25
LABEL_WIDTH, LABEL_HEIGHT = 70, 8.5  # of a scheme's name, in points
SMALLEST_EXCESS = 1e-3  # of perplexity over float: less is not told apart on a logarithmic axis


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


def plot_pareto(schemes: pd.DataFrame, models: list[str], order: list[str]) -> Figure:
    """Excess perplexity of every scheme against the bytes of all weights, one panel a model, with the Pareto front.

    Takes the SCHEMES table. Both axes are logarithmic, so that schemes close to float and those that collapse can both
    be told apart; what is within 0.1 % of float stands at the foot. Schemes on the front are named in bold.
    """
    with style():
        figure, panels = plt.subplots(1, len(models), figsize=(10, 5.4), squeeze=False)
        for axes, model in zip(panels[0], models, strict=True):
            rows = schemes[(schemes["model"] == model) & schemes["ratio"].notna()].set_index("scheme")
            rows = rows.loc[[scheme for scheme in order if scheme in rows.index]]
            front = pareto(rows.reset_index())
            megabytes = rows["weights_bytes"] / 1e6
            excess, low, high = (
                (rows[name] - 1).clip(lower=SMALLEST_EXCESS) for name in ("ratio", "ratio_low", "ratio_high")
            )
            spread = [excess - low, high - excess]
            axes.plot(megabytes[front], excess[front], color=COLOURS[1], lw=1.2, zorder=1, label="Pareto front")
            axes.errorbar(megabytes, excess, yerr=spread, fmt="o", color=COLOURS[0], ms=4, capsize=2, lw=0.8)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.margins(x=0.2)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
            axes.set_title(model)
            axes.set_xlabel("bytes of all weights, in millions (logarithmic)")
            axes.set_ylabel("perplexity above that of the float model (logarithmic)")
            axes.legend(fontsize=7, loc="upper right")
            figure.draw_without_rendering()  # the layout must stand before places on paper can be told
            places = axes.transData.transform(np.column_stack([megabytes, excess])) * 72 / figure.dpi
            for scheme, lift in zip(rows.index, _lifts(places), strict=True):
                axes.annotate(
                    scheme,
                    (megabytes[scheme], excess[scheme]),
                    xytext=(6, lift - 2),
                    textcoords="offset points",
                    fontsize=7,
                    fontweight="bold" if scheme in front else "normal",
                )
    return figure


def _lifts(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far labels beside `places` [labels, (x, y)] are lifted so that none lies on another, all in points."""
    heights = places[:, 1].copy()
    order = np.argsort(places[:, 1], kind="stable")
    for rank, label in enumerate(order):
        for below in order[:rank]:
            if abs(places[label, 0] - places[below, 0]) < LABEL_WIDTH:
                heights[label] = max(heights[label], heights[below] + LABEL_HEIGHT)
    return heights - places[:, 1]


def plot_sensitivity(sensitivity: pd.DataFrame) -> Figure:
    """KL divergence from the float model when one layer alone is rounded: decoder layers against kinds of layer.

    Takes a SENSITIVITY table. Layers outside of the decoder's blocks have a column at the left.
    """
    index = sensitivity["layer"].map(decoder_layer_index)
    kind = sensitivity["layer"].str.split(".").str[-1]
    grid = sensitivity.assign(block=index.fillna(-1).astype(int), kind=kind).pivot_table(
        index="kind", columns="block", values="kl_divergence", sort=False
    )
    grid = grid.sort_index(axis=1)
    values = grid.to_numpy().clip(min=np.finfo(np.float32).tiny)
    with style():
        figure, axes = plt.subplots(figsize=(10, 1.4 + 0.3 * len(grid)))
        least = max(np.nanmax(values) * 1e-5, np.nanmin(values))  # a block without a layer of some kind has no value
        image = axes.imshow(values, aspect="auto", cmap="viridis", norm=LogNorm(least, np.nanmax(values)))
        axes.grid(visible=False)
        axes.set_yticks(range(len(grid)), list(grid.index))
        axes.set_xticks(range(len(grid.columns)), [str(block).replace("-1", "other") for block in grid.columns])
        axes.tick_params(axis="x", labelsize=7)
        axes.set_xlabel("decoder layer")
        figure.colorbar(image, ax=axes, label="KL divergence in nats", pad=0.01)
    return figure
