"""How every figure looks, and how it is saved so that equal data gives equal bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from inferometer.files import whole_file

plt.switch_backend("Agg")  # figures go to files, whether or not there is a screen

COLOURS = (
    "#2f6db3",
    "#d1682a",
    "#3f8f4f",
    "#8a5fb0",
    "#b03a48",
    "#6b7280",
)  # told apart in print and by most eyes
MUTED = "#6b7280"

STYLE: Any = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#d9dce1",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "inferometer",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw the block's figures in the house style."""
    with plt.rc_context(STYLE):
        yield


def logarithmic_x(axes: Axes, values: Sequence[int], label: str) -> None:
    """A logarithmic axis with a tick for each value that is shown, as 8k where it is a multiple of 1,024."""
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value // 1024}k" if value % 1024 == 0 else str(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)


def logarithmic_y(axes: Axes) -> None:
    """A logarithmic axis with plain numbers: powers of ten, and between them 2 and 5 times as much."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if f"{value:e}"[0] in "25" else ""))


def error_bars(rows: pd.DataFrame, low: str = "latency_ms_q25", high: str = "latency_ms_q75") -> list[pd.Series]:
    """How far error bars reach below and above the median latencies of `rows`: to their quartiles, or to others."""
    return [rows["latency_ms"] - rows[low], rows[high] - rows["latency_ms"]]


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Save whole and without a date; the format follows the ending."""
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with style(), whole_file(path) as partial:  # names inside an SVG are only made when it is written
        figure.savefig(partial, format=path.suffix.removeprefix("."), dpi=dpi, metadata=metadata)
    plt.close(figure)
