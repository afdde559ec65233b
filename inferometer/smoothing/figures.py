"""Figures of the smoothing chapter, from its tables and those of calibration."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from inferometer.layers import decoder_layer_index
from inferometer.plotting import COLOURS, MUTED, style


def plot_smoothing(
    activations: pd.DataFrame, weights: pd.DataFrame, scales: pd.DataFrame, sites: pd.DataFrame
) -> Figure:
    """Largest magnitude of every channel before and after smoothing, at the sites of the middle decoder layer.

    Takes the ACTIVATIONS, WEIGHTS, SCALES and SITES tables of one model and scheme. Channels are in order of their
    activation before smoothing, so that the outliers stand at the right.
    """
    norms = sites[sites["folded"] & sites["rows"].isna()]
    folded = norms.assign(decoder_layer=lambda table: table["site"].map(decoder_layer_index))
    indices = sorted(folded["decoder_layer"].dropna().unique())
    chosen = folded[folded["decoder_layer"] == indices[(len(indices) - 1) // 2]]
    with style():
        figure, grid = plt.subplots(len(chosen), 2, figsize=(10, 2.6 * len(chosen)), squeeze=False, sharey=True)
        for row, site in zip(grid, chosen.itertuples(), strict=True):
            layers = site.layers.split()
            factor = scales[scales["site"] == site.site].sort_values("channel")["factor"].to_numpy()
            counted = activations[(activations["layer"] == layers[0]) & activations["first_token"]]
            activation = counted.sort_values("channel")["absmax"].to_numpy()
            of_layers = weights[weights["layer"].isin(layers) & (weights["axis"] == "input")]
            weight = of_layers.groupby("channel")["absmax"].max().sort_index().to_numpy()
            order = np.argsort(activation, kind="stable")
            for axes, before, after, title in (
                (row[0], activation, activation / factor, "input"),
                (row[1], weight, weight * factor, "weights"),
            ):
                axes.plot(
                    before[order],
                    color=MUTED,
                    label=f"before: {before.max() / np.median(before):.0f} x",
                    lw=0.9,
                )
                axes.plot(
                    after[order],
                    color=COLOURS[0],
                    label=f"after: {after.max() / np.median(after):.0f} x",
                    lw=0.9,
                )
                axes.set_yscale("log")
                axes.set_title(f"{site.site}: {title}", fontsize=8)
                axes.legend(title="largest over median channel", fontsize=7, title_fontsize=7, loc="upper left")
            row[0].set_ylabel("largest magnitude")
        for axes in grid[-1]:
            axes.set_xlabel("channels, in order of input magnitude before smoothing")
    return figure


def plot_alphas(alphas: pd.DataFrame) -> Figure:
    """Output error against the strength of smoothing: median and quartiles over the sites of a kind, and the choices.

    Takes an ALPHAS table of a searched scheme. Errors are relative to the power of the float outputs.
    """
    kinds = alphas["site"].str.split(".").str[-1]
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(2, 1))
        for number, (kind, rows) in enumerate(alphas.groupby(kinds, sort=False)):
            colour = COLOURS[number % len(COLOURS)]
            low, middle, high = (rows.groupby("alpha")["error"].quantile(share) for share in (0.25, 0.5, 0.75))
            left.plot(middle.index, middle, color=colour, label=f"{kind} ({rows['site'].nunique()} sites)")
            left.fill_between(middle.index, low, high, color=colour, alpha=0.15, lw=0)
        left.set_yscale("log")
        left.set_title("Error of the layers' outputs")
        left.set_xlabel("alpha")
        left.set_ylabel("squared error over power")
        left.legend(fontsize=7)
        counts = alphas[alphas["chosen"]]["alpha"].value_counts().sort_index()
        right.bar(counts.index, counts, width=0.07, color=MUTED)
        right.set_xlim(-0.08, 1.08)
        right.set_title("Strengths chosen")
        right.set_xlabel("alpha")
        right.set_ylabel("sites")
    return figure
