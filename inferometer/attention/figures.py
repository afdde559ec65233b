"""Figures of the attention chapter, from its tables alone."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from inferometer.attention.names import ALL_TEXTS, BOS, FLOAT, OWN
from inferometer.attention.tables import meaningful
from inferometer.plotting import COLOURS, MUTED, logarithmic_y, style
from inferometer.visible import drawable

LEAST_SHARE = 1e-3  # the darkest end of the logarithmic colours
MAP_TITLES = {"first": "first layer", "middle": "middle layer", "last": "last layer"}
HEAD_TITLES = {"sink": "most sink-like head", "local": "most local head"}
FIRST_TOKEN_TITLES = {OWN: "the text's own", BOS: "BOS before it"}
PHASE_COLOURS = {"emergence": "#f3ede2", "plateau": "#e3ebf5", "decline": "#f5e6e6"}


def _draw_map(axes: Axes, rows: pd.DataFrame) -> Any:
    """One map; white is what lies above the diagonal or below the least share."""
    starts = sorted(rows["row"].unique())
    places = {start: place for place, start in enumerate(starts)}
    cells = np.full((len(starts), len(starts)), np.nan)
    cells[rows["row"].map(places), rows["column"].map(places)] = rows["share"].clip(lower=LEAST_SHARE)
    image = axes.imshow(cells, norm=LogNorm(LEAST_SHARE, 1), cmap="magma_r", interpolation="nearest", aspect="equal")
    axes.grid(visible=False)
    first = rows.iloc[0]
    titles = MAP_TITLES | HEAD_TITLES
    head = "mean over heads" if pd.isna(first["head"]) else f"head {int(first['head'])}"
    axes.set_title(f"{titles[first['map']]}\nlayer {first['layer']}, {head}", fontsize=7.5)
    return image


def _label_tokens(axes: Axes, rows: pd.DataFrame, *, rows_too: bool) -> None:
    """Tokens on the axes of a full map, places on those of a coarse one."""
    diagonal = rows[rows["row"] == rows["column"]].sort_values("row")
    if rows["cell_tokens"].iloc[0] == 1:
        texts = [drawable(str(text)).strip() or "␣" for text in diagonal["row_text"]]
        axes.set_xticks(range(len(texts)), texts, rotation=90, fontsize=4.5)
        axes.set_yticks(range(len(texts)), texts if rows_too else [""] * len(texts), fontsize=4.5)
    else:
        shown = np.linspace(0, len(diagonal) - 1, 5).round().astype(int)
        labels = diagonal["row"].iloc[shown].tolist()
        axes.set_xticks(shown, labels, fontsize=6)
        axes.set_yticks(shown, labels if rows_too else [""] * len(shown), fontsize=6)
    axes.tick_params(length=1.5, pad=1)


def plot_maps(maps: pd.DataFrame, text: str, lengths: Sequence[str]) -> Figure:
    """Attention maps of one input, a row of panels for each length. Takes MAPS.

    Colours are logarithmic; where several tokens share a cell the axes say where it begins.
    """
    own, names = maps[maps["input"] == text], [*MAP_TITLES, *HEAD_TITLES]
    with style():
        figure, panels = plt.subplots(len(lengths), len(names), figsize=(11.5, 2.6 * len(lengths)), squeeze=False)
        for length, row in zip(lengths, panels, strict=True):
            for place, (name, axes) in enumerate(zip(names, row, strict=True)):
                rows = own[(own["length"] == length) & (own["map"] == name)]
                image = _draw_map(axes, rows)
                _label_tokens(axes, rows, rows_too=place == 0)
            tokens = int(rows["cell_tokens"].iloc[0])
            unit = "token" if tokens == 1 else f"position, {tokens} tokens to a cell"
            row[0].set_ylabel(f"{length}: {unit}", fontsize=8)
        figure.supxlabel("looked at", fontsize=9)
        bar = figure.colorbar(image, ax=panels, shrink=0.6, pad=0.01, aspect=40)
        bar.set_label("share of the row's attention")
    return figure


def _in_order(sinks: pd.DataFrame) -> list[str]:
    """Lengths from the shortest."""
    return list(dict.fromkeys(sinks.sort_values("tokens", kind="stable")["length"]))


def _draw_curve(axes: Axes, rows: pd.DataFrame, colour: str, label: str) -> None:
    rows = rows.sort_values("layer")
    axes.plot(rows["layer"], rows["share"], "-", lw=1.4, color=colour, label=label)
    axes.fill_between(rows["layer"], rows["share_low"], rows["share_high"], color=colour, alpha=0.18, lw=0)


def plot_sinks(sinks: pd.DataFrame, phases: pd.DataFrame, model: str) -> Figure:
    """Share on the first two tokens against the layer, a line for each input and a panel for each length.

    Takes SINKS and PHASES. The ground shows the phases of all texts that mean something together; bars at the top are
    the intervals of where they begin; dashed is what equal looks would give.
    """
    own = sinks[(sinks["model"] == model) & (sinks["first_token"] == OWN)]
    lengths, inputs = _in_order(own), sorted(own["input"].unique())
    with style():
        figure, panels = plt.subplots(1, len(lengths), figsize=(11, 3.9), sharey=True, squeeze=False)
        for length, axes in zip(lengths, panels[0], strict=True):
            rows = own[own["length"] == length]
            found = phases[(phases["model"] == model) & (phases["length"] == length) & (phases["input"] == ALL_TEXTS)]
            stretch: Any
            for stretch in found.itertuples():
                colour = PHASE_COLOURS[stretch.phase]
                axes.axvspan(stretch.first_layer - 0.5, stretch.last_layer + 0.5, color=colour, lw=0)
                if stretch.stretch:
                    axes.plot(
                        [stretch.first_layer_low - 0.5, stretch.first_layer_high - 0.5], [0.985] * 2,
                        color=MUTED, lw=2.5, solid_capstyle="butt", marker="|", ms=6,
                    )  # fmt: skip
            for name, colour in zip(inputs, COLOURS, strict=False):
                _draw_curve(axes, rows[rows["input"] == name], colour, name)
            uniform = rows.groupby("layer")["uniform"].mean()
            axes.plot(uniform.index, uniform, "--", lw=1, color=MUTED, label="equal looks")
            axes.set_title(f"{length}: {rows['tokens'].iloc[0]} tokens")
            axes.set_xlabel("decoder layer")
            axes.set_ylim(0, 1)
            axes.margins(x=0)
        panels[0, 0].set_ylabel("share on the first two tokens")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        grounds = [Line2D([], [], color=colour, lw=7) for colour in PHASE_COLOURS.values()]
        figure.legend([*handles, *grounds], [*labels, *PHASE_COLOURS], loc="outside lower center", ncols=5, fontsize=8)
    return figure


def plot_heads(heads: pd.DataFrame) -> Figure:
    """Share on the first two tokens by layer and head, mean over the texts that mean something. Takes HEADS."""
    own = meaningful(heads[heads["head"].notna()])
    lengths = _in_order(own)
    with style():
        figure, panels = plt.subplots(1, len(lengths), figsize=(11, 4.6), sharey=True, squeeze=False)
        for length, axes in zip(lengths, panels[0], strict=True):
            rows = own[own["length"] == length]
            cells = rows.pivot_table(index="layer", columns="head", values="first_2")
            image = axes.imshow(cells, vmin=0, vmax=1, cmap="magma_r", aspect="auto", interpolation="nearest")
            axes.grid(visible=False)
            axes.set_xticks(range(cells.shape[1]), cells.columns)
            axes.set_yticks(range(0, len(cells), max(1, len(cells) // 10)), cells.index[:: max(1, len(cells) // 10)])
            axes.set_title(f"{length}: {rows['tokens'].iloc[0]} tokens")
            axes.set_xlabel("head")
        panels[0, 0].set_ylabel("decoder layer")
        figure.colorbar(image, ax=panels, pad=0.01, aspect=40).set_label("share on the first two tokens")
    return figure


def plot_first_tokens(sinks: pd.DataFrame, model: str) -> Figure:
    """Share on the first token alone and on the first two, by what the texts begin with. Takes SINKS."""
    rows = sinks[sinks["model"] == model]
    own = rows.merge(rows[rows["first_token"] != OWN][["input", "length"]].drop_duplicates())
    with style():
        figure, axes = plt.subplots(figsize=(7.5, 3.8))
        names = [OWN, *sorted(set(own["first_token"]) - {OWN})]
        for name, colour in zip(names, COLOURS, strict=False):
            label = FIRST_TOKEN_TITLES.get(name, f"a {name} word")
            _draw_curve(axes, own[own["first_token"] == name], colour, label)
        axes.set_xlabel("decoder layer")
        axes.set_ylabel("share on the first two tokens")
        axes.set_ylim(0, 1)
        axes.margins(x=0)
        axes.legend(title="first token", fontsize=8, loc="upper left")
    return figure


def plot_residuals(residuals: pd.DataFrame, sinks: pd.DataFrame, model: str) -> Figure:
    """The largest magnitude at the first token and the median of all, behind every layer, over the share of attention.

    Takes RESIDUALS and SINKS; texts as they are that mean something.
    """
    own = meaningful(residuals[residuals["rank"] == 0])
    own = own.assign(magnitude=own["value"].abs())
    by_layer = own.groupby("layer")[["magnitude", "median_magnitude", "later_magnitude"]]
    middle, low, high = by_layer.median(), by_layer.quantile(0.05), by_layer.quantile(0.95)
    labels = {
        "magnitude": "largest value at the first token",
        "later_magnitude": "the same channel at its largest later token",
        "median_magnitude": "median of all channels and tokens",
    }
    shares = meaningful(sinks[sinks["model"] == model])
    with style():
        figure, (upper, lower) = plt.subplots(2, 1, figsize=(7.5, 5.2), sharex=True)
        for (name, label), colour in zip(labels.items(), (COLOURS[4], COLOURS[1], MUTED), strict=True):
            upper.plot(middle.index, middle[name], lw=1.4, color=colour, label=label)
            upper.fill_between(middle.index, low[name], high[name], color=colour, alpha=0.18, lw=0)
        logarithmic_y(upper)
        upper.set_ylabel("magnitude in the residual stream")
        upper.legend(
            fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1, handlelength=1.4
        )
        for length, colour in zip(_in_order(shares), COLOURS, strict=False):
            mean = shares[shares["length"] == length].groupby("layer")["share"].mean()
            lower.plot(mean.index, mean, lw=1.4, color=colour, label=length)
        lower.set_ylabel("share on the first two tokens")
        lower.set_xlabel("decoder layer")
        lower.set_ylim(bottom=0)
        lower.margins(x=0)
        lower.legend(fontsize=8)
    return figure


def arm(scheme: str, cache: str) -> str:
    """What to call a scheme with a cache."""
    return scheme if cache == FLOAT else f"cache {cache}"


def plot_schemes(rounded: pd.DataFrame, model: str) -> Figure:
    """Share on the first two tokens under each arm, and how far entropies move from float. Takes ATTENTION_SCHEMES."""
    own = rounded[(rounded["model"] == model) & rounded["layer"].notna()]
    own = own.assign(arm=[arm(*names) for names in zip(own["scheme"], own["cache"], strict=True)])
    with style():
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9))
        for (name, rows), colour in zip(own.groupby("arm", sort=False), COLOURS, strict=False):
            rows = rows.sort_values("layer")
            layers = rows["layer"].astype(float)
            left.plot(layers, rows["share"], lw=1.4, color=colour, label=str(name))
            for axes, quantity in ((middle, "share"), (right, "entropy")):
                change = rows[f"{quantity}_change"]
                axes.plot(layers, change, lw=1.4, color=colour)
                low, high = rows[f"{quantity}_change_low"], rows[f"{quantity}_change_high"]
                axes.fill_between(layers, low, high, color=colour, alpha=0.18, lw=0)
        left.set_ylim(0, 1)
        left.set_ylabel("share on the first two tokens")
        middle.set_ylabel("change of that share")
        right.set_ylabel("change of the entropy (nats)")
        for axes in (left, middle, right):
            axes.set_xlabel("decoder layer")
            axes.margins(x=0)
        figure.legend(loc="outside lower center", ncols=6, fontsize=8)
    return figure
