"""Figures of the calibration chapter, from its tables alone."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.axes3d import Axes3D

from inferometer.layers import decoder_layer_index
from inferometer.plotting import COLOURS, style

SMALLEST_SHOWN = 2.0**-10
LOWEST_DENSITY, HIGHEST_DENSITY = 1e-7, 100.0
TICKS = (-100, -1, -0.01, 0.01, 1, 100)


def role(layer: str) -> str:
    """What a linear layer is within its decoder layer: the module name after the layer's number."""
    index = decoder_layer_index(layer)
    return layer if index is None else layer.split(f".{index}.", 1)[1]


def _readers_of_distinct_inputs(rows: pd.DataFrame, value: str) -> dict[str, str]:
    """One layer for each distinct input within a decoder layer, with a label that names all layers reading it.

    Layers that read the same tensor have the same numbers in the column `value` of their activation rows.
    """
    activation = rows[rows["tensor"] == "activation"]
    content = {str(layer): tuple(part[value]) for layer, part in activation.groupby("layer", sort=False)}
    readers: dict[tuple[float, ...], list[str]] = {}
    for layer, values in content.items():
        readers.setdefault(values, []).append(layer)
    return {names[0]: ", ".join(role(name).split(".")[-1] for name in names) for names in readers.values()}


def _density(axes: Axes, rows: pd.DataFrame, colour: str, label: str) -> None:
    """Share of values per octave, drawn left and right of zero; the smallest magnitudes are left out."""
    filled = rows[(rows["low"] != 0) & (rows["high"] != 0)]
    octaves = np.abs(np.log2(filled["high"] / filled["low"]))
    shares: pd.Series[float] = filled["count"] / rows["count"].sum() / octaves
    for side, name in ((filled["high"] <= -SMALLEST_SHOWN, label), (filled["low"] >= SMALLEST_SHOWN, "_")):
        middle = (filled["low"] + filled["high"])[side] / 2
        axes.plot(middle, shares[side], color=colour, label=name, linewidth=1.1)


def plot_distributions(histograms: pd.DataFrame) -> Figure:
    """Weights beside activations for each decoder layer of a HISTOGRAMS table, on one symmetric logarithmic axis."""
    counted = histograms[histograms["first_token"]].assign(
        decoder_layer=lambda table: table["layer"].map(decoder_layer_index)
    )
    indices = sorted(counted["decoder_layer"].unique())
    reach = float(counted[["low", "high"]].abs().to_numpy().max()) * 1.3
    with style():
        figure, grid = plt.subplots(
            len(indices), 2, figsize=(10, 2.5 * len(indices)), sharex=True, sharey=True, squeeze=False
        )
        for row, index in zip(grid, indices, strict=True):
            of_layer = counted[counted["decoder_layer"] == index]
            readers = _readers_of_distinct_inputs(of_layer, "count")
            for colour, (layer, label) in zip(COLOURS * 4, readers.items(), strict=False):
                for axes, tensor in zip(row, ("weight", "activation"), strict=True):
                    rows = of_layer[(of_layer["layer"] == layer) & (of_layer["tensor"] == tensor)]
                    _density(
                        axes,
                        rows,
                        colour,
                        label.split(", ")[0] if tensor == "weight" else f"input of {label}",
                    )
            for axes, title in zip(row, ("weights", "activations"), strict=True):
                axes.set_title(f"Decoder layer {index}: {title}")
                axes.set_xscale("symlog", linthresh=SMALLEST_SHOWN, linscale=0.3)
                axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
                axes.set_yscale("log")
                axes.set_xlim(-reach, reach)
                axes.set_ylim(LOWEST_DENSITY, HIGHEST_DENSITY)
                axes.legend(fontsize=7, loc="upper center", ncols=2)
            row[0].set_ylabel("share of values per octave")
        for axes in grid[-1]:
            axes.set_xlabel("value (logarithmic on both sides of zero)")
    return figure


def plot_surfaces(surfaces: pd.DataFrame, tensor: str) -> Figure:
    """Magnitudes of a SURFACES table as 3D surfaces: a row for each decoder layer, a column for each distinct input."""
    shown = surfaces.assign(decoder_layer=lambda table: table["layer"].map(decoder_layer_index))
    indices = sorted(shown["decoder_layer"].unique())
    readers = {
        index: _readers_of_distinct_inputs(shown[shown["decoder_layer"] == index], "magnitude") for index in indices
    }
    columns = max(len(labels) for labels in readers.values())
    with style():
        figure = plt.figure(figsize=(3.3 * columns, 3.0 * len(indices)), layout="none")
        figure.subplots_adjust(left=0.01, right=0.96, bottom=0.05, top=0.97, wspace=0.08, hspace=0.16)
        for row, index in enumerate(indices):
            for column, (layer, label) in enumerate(readers[index].items()):
                axes = figure.add_subplot(len(indices), columns, row * columns + column + 1, projection="3d")
                assert isinstance(axes, Axes3D)
                rows = shown[(shown["layer"] == layer) & (shown["tensor"] == tensor)]
                heights = rows.pivot_table(index="row", columns="channel", values="magnitude")
                x, y = np.meshgrid(heights.columns.to_numpy(), heights.index.to_numpy())
                axes.plot_surface(
                    x,
                    y,
                    heights.to_numpy(),
                    cmap="viridis",
                    rcount=64,
                    ccount=96,
                    linewidth=0,
                    antialiased=False,
                )
                what = label.split(", ")[0] if tensor == "weight" else f"input of {label}"
                axes.set_title(f"layer {index}: {what}", fontsize=8, loc="center")
                axes.set_xlabel("input channel", fontsize=7, labelpad=-3)
                axes.set_ylabel("output channel" if tensor == "weight" else "token", fontsize=7, labelpad=-3)
                axes.tick_params(labelsize=6, pad=0)
                axes.view_init(elev=28, azim=-55)
    return figure
