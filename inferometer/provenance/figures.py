"""The rule graph as a picture."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from inferometer.plotting import COLOURS, style

COLUMNS = {  # how a rule's name begins, and what such rules do; all others measure
    "fetch": "fetch",
    "": "measure and compute",
    "summarize": "summarize",
    "plot": "draw",
}
PAGE = "report"
ROW_INCHES, COLUMN_INCHES = 0.21, 2.1
LABEL = 0.15  # half of the narrowest label, in columns; wider ones hide the ends of lines


def columns(rules: pd.DataFrame) -> list[list[str]]:
    """The rules of a RULES table but for the page's, in columns by what they do, those that read after those read.

    Within a column a rule stands at the mean height of what it reads, so that few lines cross (the barycentre rule of
    Sugiyama, Tagawa and Toda 1981).
    """
    needs = {rule: sorted(rules[rules["rule"] == rule]["needs"]) for rule in {*rules["rule"], *rules["needs"]} - {PAGE}}
    found: list[list[str]] = []
    height: dict[str, float] = {}
    for kind in COLUMNS:
        waiting = sorted(rule for rule in needs if kind == (start if (start := rule.split("_")[0]) in COLUMNS else ""))
        column: list[str] = []
        while waiting:
            ready = [rule for rule in waiting if not set(needs[rule]) & set(waiting)]
            known = {rule: [height[need] for need in needs[rule] if need in height] for rule in ready}
            ready.sort(key=lambda rule: (sum(known[rule]) / len(known[rule]) if known[rule] else 0.5, rule))
            column += ready
            waiting = [rule for rule in waiting if rule not in ready]
            height |= {rule: (place + 0.5) / (len(column) + len(waiting)) for place, rule in enumerate(column)}
        found.append(column)
    return found


def plot_rules(rules: pd.DataFrame) -> Figure:
    """Every rule but the page's as its name, joined to those whose files it reads; data flow to the right and down."""
    placed = columns(rules)
    spots = {
        rule: (float(x), (place + 0.5) / len(column))
        for x, column in enumerate(placed)
        for place, rule in enumerate(column)
    }
    colours = [COLOURS[number] for number in (2, 0, 3, 5)]
    with style():
        figure = Figure(figsize=(COLUMN_INCHES * len(placed), 0.5 + ROW_INCHES * max(map(len, placed))))
        axes = figure.add_subplot()
        for edge in rules[rules["rule"] != PAGE].itertuples():
            (x, y), (from_x, from_y) = spots[str(edge.rule)], spots[str(edge.needs)]
            within = x == from_x
            line = FancyArrowPatch(
                (from_x + LABEL, from_y),
                (x + (LABEL if within else -LABEL), y),
                arrowstyle="-",
                connectionstyle=f"arc3,rad={-0.35 if within else 0}",
                color=colours[int(from_x)],
                alpha=0.45,
                linewidth=0.8,
            )
            axes.add_patch(line)
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "linewidth": 0.8}
        for rule, (x, y) in spots.items():
            axes.text(x, y, rule, ha="center", va="center", fontsize=7.5, bbox={**box, "edgecolor": colours[int(x)]})
        for x, (what, colour) in enumerate(zip(COLUMNS.values(), colours, strict=True)):
            axes.text(x, -0.015, what, ha="center", va="bottom", weight="bold", color=colour)
        axes.set(xlim=(-0.5, len(placed) - 0.4), ylim=(1.0, -0.03))
        axes.axis("off")
    return figure
