"""Figures of the capacity chapter, from its tables alone. Each shows the first model and GPU that the study lists."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferometer.capacity.roofline import machine_ridges
from inferometer.plotting import COLOURS, MUTED, logarithmic_x, style
from inferometer.units import GIB

MARKERS = "os^Dv<>ph"
FLOAT_BITS = 16
DECODE_CONTEXT = 1024  # of the studies' figures; the nearest that there is, is drawn
RIDGE_DTYPES = ("bfloat16", "float16")  # the first that a GPU has
KINDS = {
    "matmul-only": "one head, products alone, own K and V",
    "with-softmax": "one head, with softmax, one K and V for all",
    "standard": "all heads, causal and grouped",
    "flash": "the same as FlashAttention",
    "layer": "whole layer around it",
}


def _batches(axes: Axes, rows: pd.DataFrame, lines: str, x: str, names: dict[str, str], first: int = 0) -> None:
    """A line for each value of a column: the largest batch, which is not drawn where nothing fits."""
    for place, (value, name) in enumerate(names.items(), start=first):
        own = rows[rows[lines].astype(str) == value].sort_values(x)
        batch = own["largest_batch"].astype(float).replace(0, np.nan)
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        axes.plot(own[x], batch, marker=marker, markersize=3.5, linewidth=1.2, color=colour, label=name)
    axes.set_yscale("log")
    axes.set_ylabel("largest batch (requests)")


def _alike(rows: pd.DataFrame, name: str, value: str) -> dict[str, str]:
    """Names whose lines are the same, by the first of them: a GPU's batch follows from its memory alone."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for own, part in rows.sort_values([name, "context_tokens"]).groupby(name, sort=False):
        lines.setdefault(tuple(part[value].astype(str)), []).append(str(own))
    return {names[0]: ", ".join(names) for names in lines.values()}


def plot_batches(requests: pd.DataFrame, model: str, gpu: str) -> Figure:
    """The largest batch of a REQUESTS table: against context on each GPU, by bits of the cache, and on several GPUs."""
    own = requests[requests["model"] == model]
    single = own[own["gpus"] == 1]
    contexts = sorted(own["context_tokens"].unique())
    kv_bits = sorted(own["kv_bits"].unique(), reverse=True)
    with style():
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.5, 4.2))
        floats = single[single["kv_bits"] == kv_bits[0]]
        _batches(left, floats, "gpu", "context_tokens", _alike(floats, "gpu", "largest_batch"))
        left.set_title(f"{model}, one GPU, {kv_bits[0]}-bit cache")
        own_gpu = single[single["gpu"] == gpu]
        _batches(middle, own_gpu, "kv_bits", "context_tokens", {str(bits): f"{bits}-bit cache" for bits in kv_bits})
        middle.set_title(f"{model}, one {gpu}")
        for axes in (left, middle):
            logarithmic_x(axes, contexts, "context (tokens)")
        several = own[(own["gpu"] == gpu) & (own["kv_bits"] == kv_bits[0])]
        one = several[several["gpus"] == 1].assign(parallel="pipeline")
        ways = pd.concat([several, one])
        shown = [
            context for context in contexts if context in (contexts[0], contexts[len(contexts) // 2], contexts[-1])
        ]
        for place, context in enumerate(shown):
            at = ways[ways["context_tokens"] == context].dropna(subset="largest_batch")
            for parallel, line in (("tensor", "-"), ("pipeline", ":")):
                part = at[at["parallel"] == parallel].sort_values("gpus")
                batch = part["largest_batch"].astype(float).replace(0, np.nan)
                label = f"{context:,} tokens, {parallel}"
                right.plot(part["gpus"], batch, line, marker="o", markersize=3.5, color=COLOURS[place], label=label)
        right.set_yscale("log")
        right.set_ylabel("largest batch (requests, each counted once)")
        logarithmic_x(right, sorted(ways["gpus"].unique()), "GPUs that share the model")
        right.set_title(f"{model}, several {gpu}")
        right.set_ylim(top=right.get_ylim()[1] * 30)  # room for the legend
        for axes in (left, middle, right):
            axes.legend(fontsize=7)
    return figure


def plot_cache(requests: pd.DataFrame, model: str) -> Figure:
    """GiB of a request's cache against context: by bits for one model, and of all models in 16 bits."""
    single = requests[(requests["gpus"] == 1) & (requests["gpu"] == requests["gpu"].iloc[0])]
    kv_bits = sorted(single["kv_bits"].unique(), reverse=True)
    contexts = sorted(single["context_tokens"].unique())
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
        for place, bits in enumerate(kv_bits):
            rows = single[(single["model"] == model) & (single["kv_bits"] == bits)].sort_values("context_tokens")
            each = f"{rows['kv_bytes_per_token'].iloc[0] / 1024:,.1f} KiB a token"
            size = rows["kv_bytes_per_request"].astype(float) / GIB
            marker, colour = MARKERS[place], COLOURS[place]
            left.plot(
                rows["context_tokens"], size, marker=marker, markersize=3.5, color=colour, label=f"{bits} bits: {each}"
            )
        left.set_title(f"{model}, by bits of the cache")
        left.set_ylabel("KV cache of one request (GiB)")
        floats = single[single["kv_bits"] == kv_bits[0]]
        largest = floats[floats["context_tokens"] == contexts[-1]].sort_values("kv_bytes_per_request", ascending=False)
        alike = _alike(floats, "model", "kv_bytes_per_request")
        for place, name in enumerate(name for name in largest["model"] if name in alike):
            rows = floats[floats["model"] == name].sort_values("context_tokens")
            size = rows["kv_bytes_per_request"].astype(float) / GIB
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            right.plot(
                rows["context_tokens"],
                size,
                marker=marker,
                markersize=3.5,
                linewidth=1,
                color=colour,
                label=alike[name],
            )
        right.set_title(f"All models, {kv_bits[0]} bits")
        right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        left.legend(fontsize=7)
        left.set_yscale("log")
        for axes in (left, right):
            logarithmic_x(axes, contexts, "context (tokens)")
    return figure


def _ridge_points(ridges: pd.DataFrame, machine: pd.DataFrame) -> pd.DataFrame:
    """A row for each GPU, in 16 bits, and one for each dtype of this machine with a peak: label and ridge, in order."""
    labels = []
    for name, rows in ridges.groupby("gpu"):
        dtype = next(dtype for dtype in RIDGE_DTYPES if dtype in set(rows["dtype"]))
        labels.append((f"{name}, {dtype}", float(rows.set_index("dtype")["ridge"][dtype]), False))
    here = machine_ridges(machine).set_index("dtype")["ridge"]
    own = [(f"this machine, {dtype}", float(ridge), True) for dtype, ridge in here.items()]
    return pd.DataFrame([*labels, *own], columns=["label", "ridge", "here"]).sort_values("ridge", ignore_index=True)


def _intensities(axes: Axes, rows: pd.DataFrame, x: str) -> None:
    for place, (kind, label) in enumerate(KINDS.items()):
        own = rows[rows["kind"] == kind]
        for bits in sorted(own["kv_bits"].unique(), reverse=True):
            line = own[own["kv_bits"] == bits].sort_values(x)
            is_float = bits == FLOAT_BITS
            dashes = "-" if is_float else (0, (1, 1 + (FLOAT_BITS - int(bits)) / 8))
            name = label if is_float else "_"
            axes.plot(line[x], line["intensity"], linestyle=dashes, color=COLOURS[place], linewidth=1.3, label=name)
    axes.set_yscale("log")


def plot_intensity(
    intensity: pd.DataFrame, ridges: pd.DataFrame, machine: pd.DataFrame, model: str, gpus: list[str]
) -> Figure:
    """Operations per byte of an INTENSITY table in prefill and decode, and the ridge points of GPUs."""
    own = intensity[intensity["model"] == model]
    contexts, batches = (sorted(own[name].unique()) for name in ("context_tokens", "batch"))
    at = min(contexts, key=lambda context: abs(context - DECODE_CONTEXT))
    points = _ridge_points(ridges[ridges["gpu"].isin(gpus)], machine)
    catalogue = points[~points["here"]]["ridge"]
    with style():
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.6), width_ratios=[1, 1, 0.8])
        prefill = own[(own["phase"] == "prefill") & (own["batch"] == batches[0])]
        _intensities(left, prefill, "context_tokens")
        logarithmic_x(left, contexts, "context N (tokens)")
        left.set_title(f"Prefill, batch {batches[0]}")
        left.set_ylabel("operations per byte")
        _intensities(middle, own[(own["phase"] == "decode") & (own["context_tokens"] == at)], "batch")
        logarithmic_x(middle, batches, "batch (requests)")
        middle.set_title(f"Decode, N = {at:,}; dotted: cache of fewer bits")
        middle.sharey(left)
        for axes in (left, middle):
            axes.axhspan(catalogue.min(), catalogue.max(), color=MUTED, alpha=0.15, linewidth=0)
            for ridge in points[points["here"]]["ridge"]:
                axes.axhline(float(ridge), color=COLOURS[1], linewidth=0.8, linestyle="--", alpha=0.7)
        middle.text(batches[0], float(catalogue.max()), " ridge points of GPUs", fontsize=7, va="bottom", color=MUTED)
        colours = [COLOURS[1] if here else COLOURS[0] for here in points["here"]]
        places = np.arange(len(points))
        right.hlines(places, 1, points["ridge"], color=colours, linewidth=1)
        right.scatter(points["ridge"], places, color=colours, s=18, zorder=3)
        for place, ridge in zip(places, points["ridge"], strict=True):
            right.text(ridge * 1.15, place, f"{ridge:,.0f}", va="center", fontsize=7)
        right.set_xscale("log")
        right.set_xlim(1, float(points["ridge"].max()) * 2.5)
        right.set_yticks(places, list(points["label"]), fontsize=7)
        right.set_xlabel("ridge point (operations per byte)")
        right.set_title("Where arithmetic becomes the limit")
        figure.legend(*left.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3)
    return figure
