"""Figures of the chapter on KV caches, from its tables alone."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from inferometer.kv_cache.summary import is_float, is_static
from inferometer.plotting import COLOURS, MUTED, logarithmic_x, logarithmic_y, style
from inferometer.units import MIB

MARKERS = "sD^vP*Xp<>h8"
LEAST_DIVERGENCE = 1e-9  # in nats: nothing can lie lower on a logarithmic axis
SHADES = {2: "#c6dbef", 3: "#6baed6", 4: "#2f6db3", 8: "#173e6b", 0: "#b9bec7"}  # of bits; 0 is the model's dtype
ABOVE = 0.6  # bits by which tokens in the model's dtype are drawn higher than all that are rounded


def _grids(rows: pd.DataFrame) -> dict[tuple[str, int], str]:
    """A style for each kind of grids on which all tokens have the same bits, in the order of the study."""
    statics = rows[is_static(rows)].sort_values("place")
    found = dict.fromkeys(zip(statics["keys"], statics["group_size"].astype(int), strict=True))
    return dict(zip(found, ("o-", "o--", "o:", "o-.") * len(found), strict=False))


def _markers(rows: pd.DataFrame) -> dict[str, str]:
    """A marker for each policy that is no float cache and has no line, in the order of the study."""
    others = rows[~is_float(rows) & ~is_static(rows)].sort_values("place")["policy"]
    return {policy: MARKERS[place % len(MARKERS)] for place, policy in enumerate(dict.fromkeys(others))}


def _schemes(rows: pd.DataFrame) -> dict[str, str]:
    """A colour for each scheme of the weights, in the order in which they come."""
    return dict(zip(dict.fromkeys(rows["scheme"]), COLOURS * len(rows), strict=False))


def _bars(rows: pd.DataFrame, column: str, scale: float) -> tuple[pd.Series, list[pd.Series]]:
    low, middle, high = (scale * rows[f"{column}{end}"].astype("float64") for end in ("_low", "", "_high"))
    if column == "kl_divergence":  # on a logarithmic axis
        low, middle, high = (values.clip(lower=LEAST_DIVERGENCE) for values in (low, middle, high))
    return middle, [middle - low, high - middle]


def _draw_cost(axes: Axes, rows: pd.DataFrame, column: str, scale: float) -> None:
    markers = _markers(rows)
    for scheme, colour in _schemes(rows).items():
        own = rows[rows["scheme"] == scheme]
        statics = own[is_static(own)].sort_values("effective_bits")
        for (keys, size), form in _grids(rows).items():
            line = statics[(statics["keys"] == keys) & (statics["group_size"] == size)]
            middle, reach = _bars(line, column, scale)
            axes.errorbar(line["effective_bits"], middle, reach, fmt=form, ms=4, lw=1.2, capsize=2, color=colour)
        for policy, marker in markers.items():
            point = own[own["policy"] == policy]
            middle, reach = _bars(point, column, scale)
            axes.errorbar(
                point["effective_bits"], middle, reach, fmt=marker, ms=6, mfc="none", lw=0.9, capsize=2, color=colour
            )
    axes.margins(x=0.2)
    axes.set_xlabel("bits stored for each number of a key or value")


def _name_static(axes: Axes, rows: pd.DataFrame) -> None:
    """Write the bits of a code beside the points of the first scheme's line."""
    own = rows[(rows["scheme"] == rows["scheme"].iloc[0]) & is_static(rows)]
    row: Any
    for row in own.itertuples():
        place = row.effective_bits, max(row.kl_divergence, LEAST_DIVERGENCE)
        axes.annotate(
            f"{row.bits:g} bits", place, xytext=(-5, -9), textcoords="offset points", ha="right", fontsize=7,
            color=MUTED,
        )  # fmt: skip


def _draw_pairs(axes: Axes, pairs: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """A line for each pair, a little apart by scheme."""
    names = list(dict.fromkeys(pairs["policy"] + " – " + pairs["against"]))
    for number, (scheme, colour) in enumerate(colours.items()):
        own = pairs[pairs["scheme"] == scheme]
        shift = 0.25 * (number - (len(colours) - 1) / 2)
        places = [names.index(name) + shift for name in own["policy"] + " – " + own["against"]]
        reach = [own["kl_change"] - own["kl_change_low"], own["kl_change_high"] - own["kl_change"]]
        axes.errorbar(own["kl_change"], places, xerr=reach, fmt="o", ms=4, lw=1, capsize=2, color=colour)
    axes.axvline(0, color=MUTED, lw=0.9, ls="--")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title("At the same bits on average")
    axes.set_xlabel("difference of KL divergence in nats")


def plot_accuracy(summary: pd.DataFrame, pairs: pd.DataFrame, model: str) -> Figure:
    """What a cache on few bits costs against the bits that it stores, with 95 % intervals. Takes KV_CACHE, CACHE_PAIRS.

    Left the divergence of predictions from those with a float cache, in the middle the change of right answers;
    policies with the same bits for all tokens are joined by a line. Right the pairs.
    """
    rows = summary[(summary["model"] == model) & summary["kl_divergence"].notna() & ~is_float(summary)]
    with style():
        figure, (left, right, beside) = plt.subplots(1, 3, figsize=(12, 4.6))
        _draw_pairs(beside, pairs[pairs["model"] == model], _schemes(rows))
        _draw_cost(left, rows, "kl_divergence", 1)
        logarithmic_y(left)
        left.set_title("Divergence from the float cache")
        left.set_ylabel("KL divergence in nats (logarithmic)")
        if len(rows):
            _name_static(left, rows)
        _draw_cost(right, rows[rows["accuracy_change"].notna()], "accuracy_change", 100)
        right.axhline(0, color=MUTED, lw=0.9, ls="--")
        right.set_title("Change of right answers")
        right.set_ylabel("percentage points")
        handles: list[Any] = [
            Line2D(
                [], [], color="black", marker=form[0], ls=form[1:], ms=4, lw=1.2,
                label=f"same bits, keys {keys.replace('_', ' ')}, groups of {size}",
            )
            for (keys, size), form in _grids(rows).items()
        ]  # fmt: skip
        for policy, marker in _markers(rows).items():
            handles.append(Line2D([], [], color="black", marker=marker, mfc="none", ls="none", label=policy))
        if len(colours := _schemes(rows)) > 1:
            handles += [Patch(color=colour, label=f"weights: {scheme}") for scheme, colour in colours.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _forms(rows: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Policy, colour and marker: the float cache in grey, one colour for the same bits for all, others by marker."""
    markers, statics = _markers(rows), 0
    row: Any
    for row in rows.drop_duplicates("policy").sort_values("place").itertuples():
        policy = str(row.policy)
        if policy in markers:
            yield policy, COLOURS[1] if pd.isna(row.library) else COLOURS[2], markers[policy]
        elif pd.isna(row.bits):
            yield policy, "black", "o"
        else:
            yield policy, to_hex(plt.get_cmap("Blues")(0.9 - 0.15 * min(statics, 4))), "o"
            statics += 1


def plot_bytes(lengths: pd.DataFrame, summary: pd.DataFrame, model: str) -> Figure:
    """Bytes of the cache against the prompt, as measured (points) and by theory (lines), and as a share of float's.

    Takes CACHE_LENGTHS and KV_CACHE. Bytes don't depend on the weights, so one scheme is drawn.
    """
    own, every = (table[table["model"] == model] for table in (lengths, summary))
    every = every[every["scheme"] == every["scheme"].iloc[0]]
    own = own[(own["scheme"] == every["scheme"].iloc[0]) & own["cache_bytes"].notna()]
    base = own[own["policy"].isin(every[is_float(every)]["policy"])].set_index("prompt_tokens")["cache_bytes"]
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4))
        for policy, colour, marker in _forms(every[every["policy"].isin(own["policy"])]):
            line = own[own["policy"] == policy].sort_values("prompt_tokens").set_index("prompt_tokens")
            measured, predicted = (line[name].astype("float64") for name in ("cache_bytes", "predicted_bytes"))
            form: dict[str, Any] = {"ms": 5, "mfc": "none", "color": colour}
            left.plot(line.index, measured / MIB, marker, label=policy, **form)
            left.plot(line.index, predicted / MIB, lw=1, color=colour)
            right.plot(line.index, 100 * measured / base.reindex(line.index).astype("float64"), marker, **form)
            right.plot(line.index, 100 * predicted / base.reindex(line.index).astype("float64"), lw=1, color=colour)
        for axes in (left, right):
            logarithmic_x(axes, sorted(int(tokens) for tokens in own["prompt_tokens"].unique()), "tokens of the prompt")
        logarithmic_y(left)
        left.set_title("Bytes of the cache")
        left.set_ylabel("MiB (logarithmic)")
        right.set_title("Share of the float cache")
        right.set_ylabel("per cent")
        right.set_ylim(bottom=0)
        handles, _ = left.get_legend_handles_labels()
        handles.append(Line2D([], [], color=MUTED, lw=1, label="by theory"))
        figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8)
    return figure


def _runs(bits: pd.Series) -> Iterator[tuple[int, int, int]]:
    """Bits, first place and length of each run of neighbours that share them."""
    values = bits.to_numpy(dtype=int)
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1), len(values)]
    for start, stop in pairwise(edges):
        yield int(values[start]), int(start), int(stop - start)


def _draw_bits(axes: Axes, trace: pd.DataFrame, average: float) -> None:
    widths = sorted(set(trace["bits"]))
    top = max(widths) + ABOVE
    for bits in widths:
        spans = [(start - 0.5, count) for width, start, count in _runs(trace["bits"]) if width == bits]
        axes.broken_barh(spans, (0, bits or top), color=SHADES.get(bits, MUTED), lw=0)
    axes.plot(trace["position"], trace["running_bits"].clip(upper=top), color=COLOURS[1], lw=1.3)
    axes.axhline(average, color="black", lw=0.9, ls="--")
    axes.set_ylim(0, top + 0.2)
    axes.set_yticks([bits for bits in widths if bits])
    axes.set_xlim(-0.5, len(trace) - 0.5)
    axes.grid(visible=False)
    if (prompt := int((~trace["written"].astype(bool)).sum())) < len(trace):
        axes.axvline(prompt - 0.5, color="black", lw=0.9, ls=":")


def plot_bits(traces: Mapping[str, pd.DataFrame], policies: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The bits that each token of a text got, their running mean and the budget, one panel a policy.

    Takes the CACHE_TRACE of each policy that chooses bits. Above the policy that goes by entropy stands the entropy.
    """
    shown = [policy for policy, trace in traces.items() if "feature" in policies[policy] and len(trace)]
    panels: list[tuple[str, bool]] = []
    for policy in shown:
        panels += [(policy, True)] * (policies[policy]["feature"] == "entropy") + [(policy, False)]
    with style():
        figure, grid = plt.subplots(
            max(1, len(panels)), 1, figsize=(10, 0.9 + 1.05 * max(1, len(panels))), sharex=True, squeeze=False
        )
        for axes, (policy, entropy) in zip(grid[:, 0], panels, strict=False):
            trace = traces[policy].sort_values("position", ignore_index=True)
            if entropy:
                axes.plot(trace["position"], trace["entropy"], color=COLOURS[3], lw=1)
                axes.set_ylabel("nats")
                axes.set_ylim(bottom=0)
                axes.set_title("Entropy of what the model expected")
            else:
                _draw_bits(axes, trace, policies[policy]["average_bits"])
                axes.set_ylabel("bits")
                axes.set_title(policy)
        grid[-1, 0].set_xlabel("position of the token in the text (dotted: where the model began to write)")
        widths = sorted({int(bits) for policy in shown for bits in traces[policy]["bits"]}, key=lambda bits: bits or 99)
        handles: list[Any] = [
            Patch(color=SHADES.get(bits, MUTED), label=f"{bits} bits" if bits else "the model's dtype")
            for bits in widths
        ]
        handles.append(Line2D([], [], color=COLOURS[1], lw=1.3, label="mean so far"))
        handles.append(Line2D([], [], color="black", lw=0.9, ls="--", label="budget"))
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=8)
    return figure
