"""Figures of the profiling chapter, from its tables alone."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from inferometer.capacity.roofline import roofs
from inferometer.plotting import COLOURS, MUTED, error_bars, logarithmic_x, logarithmic_y, style
from inferometer.profiling.tables import QUANTITIES
from inferometer.units import MIB

PHASES = {"prefill": "Prefill", "decode": "Decode, each token", "end_to_end": "End to end"}
MARKERS = {"prefill": "o", "decode": "s"}


def _subjects(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Label, colour and rows of each scheme, dtype and number of layers."""
    names = ["scheme", "dtype", "layers"]
    several = len(rows["layers"].unique()) > 1
    for place, (values, own) in enumerate(rows.groupby(names, sort=False)):
        scheme, dtype, layers = values
        ending = f", {layers} layers" if several else ""
        yield f"{scheme}, {dtype}{ending}", COLOURS[place % len(COLOURS)], own


def _draw_phase(axes: Axes, rows: pd.DataFrame, knees: pd.DataFrame, phase: str) -> None:
    for label, colour, own in _subjects(rows):
        own = own[own["latency_ms"].notna()].sort_values("prompt_tokens")
        if own.empty:
            continue
        guessed = bool(own["extrapolated"].iloc[0])
        low, high = ("latency_ms_low", "latency_ms_high") if guessed else ("latency_ms_q25", "latency_ms_q75")
        kind, inside = ("o:", "white") if guessed else ("o-", colour)
        label = f"{label} (extrapolated)" if guessed else label
        axes.errorbar(
            own["prompt_tokens"], own["latency_ms"], error_bars(own, low, high), fmt=kind, mfc=inside, ms=4, lw=1.2,
            capsize=2, color=colour, label=label,
        )  # fmt: skip
        axes.plot(own["prompt_tokens"], own["predicted_ms"], "--", lw=0.9, color=colour)
        subject = own.iloc[0]
        found = knees[
            (knees["phase"] == phase)
            & (knees["scheme"] == subject["scheme"])
            & (knees["dtype"] == subject["dtype"])
            & (knees["layers"] == subject["layers"])
        ]
        for knee in found.itertuples():
            if knee.has_flat and knee.rises:
                axes.plot([knee.knee_tokens], [knee.flat_ms], marker="D", ms=7, mfc="none", color=colour, ls="none")
    logarithmic_x(axes, sorted(int(tokens) for tokens in rows["prompt_tokens"].unique()), "tokens of the prompt")
    axes.set_title(PHASES[phase])
    logarithmic_y(axes)


def plot_latency(profile: pd.DataFrame, knees: pd.DataFrame, model: str) -> Figure:
    """Latency of each phase against the prompt, one line a scheme and dtype, with the roofline. Of PROFILE and KNEES.

    Of several batches the smallest is drawn.
    """
    rows = profile[profile["model"] == model]
    rows = rows[rows["batch"] == rows["batch"].min()]
    own = knees[(knees["model"] == model) & (knees["batch"] == rows["batch"].min())]
    with style():
        figure, panels = plt.subplots(1, 3, figsize=(11, 4.1))
        for axes, phase in zip(panels, PHASES, strict=True):
            _draw_phase(axes, rows[rows["phase"] == phase], own, phase)
        panels[0].set_ylabel("milliseconds (logarithmic)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))), fontsize=8)
    return figure


def plot_memory(memory: pd.DataFrame, slopes: pd.DataFrame, model: str) -> Figure:
    """What memory gains as a model writes, beside the line that theory draws. Takes MEMORY and SLOPES."""
    lines = slopes[(slopes["model"] == model) & ~slopes["extrapolated"]]
    measured = memory[memory["reason"].isna()]
    with style():
        figure, panels = plt.subplots(1, len(QUANTITIES), figsize=(11, 3.6))
        for axes, (quantity, title) in zip(panels, QUANTITIES.items(), strict=True):
            for label, colour, own in _subjects(measured):
                line = lines[(lines["quantity"] == quantity) & (lines["layers"] == own["layers"].iloc[0])]
                if line.empty:
                    continue
                fit, tokens = line.iloc[0], own["new_tokens"]
                gained = (own[quantity].astype("float64") - fit["intercept_bytes"]) / MIB
                axes.plot(tokens, gained, "o", ms=4, color=colour, label=label)
                axes.plot(tokens, fit["bytes_per_token"] * tokens / MIB, lw=1, color=colour)
                predicted = fit["predicted_bytes_per_token"] * tokens / MIB
                axes.plot(tokens, predicted, "--", lw=1, color=MUTED)
            axes.set_title(title.capitalize())
            axes.set_xlabel("tokens written")
        panels[0].set_ylabel("MiB above the line's start")
        panels[0].legend(fontsize=8, loc="upper left")
    return figure


def plot_cache_speed(speed: pd.DataFrame, model: str) -> Figure:
    """Latency with and without the KV cache, and the speed-up, against the prompt. Takes CACHE_SPEED."""
    rows = speed[(speed["model"] == model) & speed["latency_ms"].notna()]
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
        for colour, cache, label in ((COLOURS[1], False, "without cache"), (COLOURS[0], True, "with cache")):
            arm = rows[rows["cache"] == cache].sort_values("prompt_tokens")
            tokens, middle, reach = arm["prompt_tokens"], arm["latency_ms"], error_bars(arm)
            left.errorbar(tokens, middle, reach, fmt="o-", ms=4, lw=1.2, capsize=3, color=colour, label=label)
        gained = rows[rows["cache"] & rows["speedup"].notna()].sort_values("prompt_tokens")
        reach = [gained["speedup"] - gained["speedup_low"], gained["speedup_high"] - gained["speedup"]]
        right.errorbar(gained["prompt_tokens"], gained["speedup"], reach, fmt="o-", ms=4, lw=1.2, capsize=3)
        right.axhline(1, color=MUTED, lw=0.9, ls="--")
        for axes in (left, right):
            logarithmic_x(
                axes, sorted(int(tokens) for tokens in rows["prompt_tokens"].unique()), "tokens of the prompt"
            )
        logarithmic_y(left)
        written = int(rows["new_tokens"].iloc[0]) if len(rows) else 0
        left.set_title(f"Latency of {written} written tokens")
        left.set_ylabel("milliseconds (logarithmic)")
        left.legend(fontsize=8)
        right.set_title("Speed-up by the cache, with 95 % intervals")
        right.set_ylim(bottom=0)
    return figure


def plot_roofline(profile: pd.DataFrame, machine: pd.DataFrame) -> Figure:
    """Every measured prefill and decode cell under this machine's measured roofs. Takes PROFILE and MACHINE."""
    limits = roofs(machine)
    cells = profile[profile["phase"].isin(list(MARKERS)) & profile["flops"].notna() & ~profile["extrapolated"]]
    intensity = cells["flops"] / cells["bytes"]
    with style():
        figure, axes = plt.subplots(figsize=(8.5, 4.6))
        least, most = intensity.min() / 2, max(intensity.max() * 2, 200.0)
        for number, (dtype, peak) in enumerate(limits.flops_per_s.items()):
            ridge = peak / limits.bytes_per_s
            x = [least, ridge, max(most, ridge)]
            y = [least * limits.bytes_per_s / 1e9, peak / 1e9, peak / 1e9]
            axes.plot(x, y, color=MUTED, lw=1, ls=("-", "--", ":")[number % 3], label=f"roof of {dtype}")
        named = cells["model"] + ": " + cells["scheme"] + ", " + cells["dtype"]
        for place, (name, own) in enumerate(cells.groupby(named, sort=False)):
            for phase, marker in MARKERS.items():
                part = own[own["phase"] == phase]
                axes.plot(
                    part["flops"] / part["bytes"],
                    part["flops"] / part["latency_ms"] / 1e6,
                    marker,
                    ms=5,
                    mfc="none",
                    color=COLOURS[place % len(COLOURS)],
                    label=f"{name}, {phase}",
                )
        axes.set_xscale("log")
        logarithmic_y(axes)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.set_xlabel("operations per byte (logarithmic)")
        axes.set_ylabel("10⁹ operations a second (logarithmic)")
        figure.legend(loc="outside right upper", fontsize=7)
    return figure


def plot_baseline(baseline: pd.DataFrame) -> Figure:
    """Tokens a second and time to the first token of every prompt, by batch. Takes BASELINE."""
    rows = baseline[baseline["reason"].isna()]
    prompts, batches = list(dict.fromkeys(rows["prompt"])), sorted(rows["batch"].unique())
    height = 0.8 / max(1, len(batches))
    with style():
        figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
        shown = {"tokens_per_s": "Tokens written in a second", "first_token_ms": "Milliseconds to the first token"}
        for axes, (column, title) in zip(panels, shown.items(), strict=True):
            for place, batch in enumerate(batches):
                own = rows[rows["batch"] == batch].set_index("prompt")[column].reindex(prompts)
                places = [number + height * (place - (len(batches) - 1) / 2) for number in range(len(prompts))]
                label = f"batch of {batch}"
                axes.barh(places, own.astype("float64"), height, color=COLOURS[place % len(COLOURS)], label=label)
            axes.set_title(title)
            axes.set_yticks(range(len(prompts)), prompts)
        panels[0].invert_yaxis()
        panels[1].legend(fontsize=8)
    return figure
