"""Figure of the attention kernels, from its table alone."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from inferometer.plotting import COLOURS, MUTED, error_bars, logarithmic_x, logarithmic_y, style
from inferometer.profiling.kernels_summary import NAMES
from inferometer.units import MIB

COLOUR = dict(zip(NAMES, COLOURS, strict=True))
STYLES = ("o-", "s--", "^-.", "D:")  # of dtypes


def _dtypes(measured: pd.DataFrame) -> dict[str, str]:
    """The style of each dtype, float32 first."""
    return dict(zip(sorted(measured["dtype"].unique(), reverse=True), STYLES, strict=False))


def _lines(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Kernel, dtype and rows of every line, by length."""
    for kernel, dtype in sorted(set(zip(rows["kernel"], rows["dtype"], strict=True))):
        yield kernel, dtype, rows[(rows["kernel"] == kernel) & (rows["dtype"] == dtype)].sort_values("tokens")


def _draw_times(axes: Axes, measured: pd.DataFrame) -> None:
    for kernel, dtype, line in _lines(measured):
        form, middle = _dtypes(measured)[dtype], line["latency_ms"]
        axes.errorbar(line["tokens"], middle, error_bars(line), fmt=form, ms=4, lw=1.2, capsize=3, color=COLOUR[kernel])
    axes.set_title("Time of one layer's attention")
    axes.set_ylabel("milliseconds (logarithmic)")


def _draw_memory(axes: Axes, measured: pd.DataFrame) -> None:
    """Extra memory where the system could tell it, and behind it what one matrix of scores takes."""
    for dtype, form in _dtypes(measured).items():
        rows = measured[measured["dtype"] == dtype].drop_duplicates("tokens").sort_values("tokens")
        axes.plot(rows["tokens"], rows["score_bytes"] / MIB, form[1:], color=MUTED, lw=0.8, alpha=0.7)
    for kernel, dtype, line in _lines(measured[measured["extra_bytes"] > 0]):
        form = _dtypes(measured)[dtype]
        axes.plot(line["tokens"], line["extra_bytes"] / MIB, form, ms=4, lw=1.2, color=COLOUR[kernel])
    axes.set_title("Extra memory of a call, result included")
    axes.set_ylabel("MiB (logarithmic)")


def _tokens(count: int) -> str:
    return f"{count // 1024}k" if count % 1024 == 0 else str(count)


def said_of_refused(speed: pd.DataFrame) -> str:
    """Which kernels were not measured, with dtypes and lengths where that is so for some only. Takes KERNEL_SPEED."""
    said = []
    for kernel in NAMES:
        rows = speed[speed["kernel"] == kernel]
        refused = rows[rows["reason"].notna()]
        if refused.empty:
            continue
        cells = []
        for dtype, some in refused.groupby("dtype"):
            every = len(some) == (rows["dtype"] == dtype).sum()
            cells.append(f"{dtype}" if every else f"{dtype} at {', '.join(map(_tokens, sorted(some['tokens'])))}")
        said.append(kernel if len(refused) == len(rows) else f"{kernel} ({'; '.join(cells)})")
    return f"Not measured: {', '.join(said)}." if said else ""


def _add_legend(figure: Figure, measured: pd.DataFrame) -> None:
    """Kernels by colour and dtypes by line, above the panels."""
    shown = [kernel for kernel in NAMES if (measured["kernel"] == kernel).any()]
    lines = [Line2D([], [], color=COLOUR[kernel], lw=2.5, label=kernel) for kernel in shown]
    for dtype, form in _dtypes(measured).items():
        lines.append(Line2D([], [], color="black", marker=form[0], ls=form[1:], ms=4, lw=1.2, label=dtype))
    lines.append(Line2D([], [], color=MUTED, lw=0.8, alpha=0.7, label="one matrix of scores (right)"))
    figure.legend(handles=lines, loc="outside upper left", ncols=len(lines), fontsize=8)


def plot_kernels(speed: pd.DataFrame) -> Figure:
    """Median time with its quartiles, and extra memory, against the length. Takes KERNEL_SPEED of one model."""
    measured = speed[speed["reason"].isna()]
    with style():
        figure, panels = plt.subplots(1, 2, figsize=(10, 4.2))
        for axes, draw in zip(panels, (_draw_times, _draw_memory), strict=True):
            draw(axes, measured)
            logarithmic_x(axes, sorted(measured["tokens"].unique()), "tokens of the prompt (logarithmic)")
            logarithmic_y(axes)
        _add_legend(figure, measured)
        figure.supxlabel(said_of_refused(speed), x=0.01, ha="left", fontsize=8, color=MUTED, wrap=True)
    return figure
