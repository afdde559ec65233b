"""Figures of the generation chapter, from its tables alone."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferometer.generation.tables import ALL_WORDS, MEASURES
from inferometer.plotting import COLOURS, MUTED, logarithmic_y, style

RUNNING_TOKENS = 16
SHOWN = {"entropy": "entropy (nats)", "rarity": "rarity (nats)"}
KIND_COLOURS = {"rare": COLOURS[1], "common": COLOURS[0]}
PANELS = {  # a label for the axis, and measures
    "Samples of one prompt beside each other": ("share or score", ("distinct_1", "distinct_2", "unique", "self_bleu")),
    "Repetition within a sample": ("share", ("repeated_4", "repeated_8")),
    "Perplexity of what was written": ("perplexity under the model", ("perplexity",)),
    "Entropy along what was written": ("entropy (nats)", ("entropy", "sampling_entropy")),
}
APART = 0.012  # so that intervals at one temperature don't hide each other
HEADROOM = 1.2  # for the legend
STUDY_RARITY = {"without": 1.667, "with": 5.1402}  # what the source study printed of its one word


def _draw_feature(axes: Axes, own: pd.DataFrame, feature: str, colour: str) -> None:
    values, running = own[feature], own[feature].rolling(RUNNING_TOKENS, min_periods=1).mean()
    axes.plot(own["written"], values, ".", ms=2.5, alpha=0.35, color=colour)
    axes.plot(own["written"], running, lw=1.4, color=colour)
    axes.fill_between(
        own["written"], 0, 1, where=own["repeats"], step="mid", transform=axes.get_xaxis_transform(), color=MUTED,
        alpha=0.2, lw=0,
    )  # fmt: skip


def plot_features(features: pd.DataFrame, written: pd.DataFrame) -> Figure:
    """Entropy and rarity of every written token, a column of panels for each prompt. Takes FEATURES and WRITTEN.

    Lines are means of the last 16 tokens. The ground is shaded where passages come again; a dotted line is where a loop
    begins, a dashed one where the text ends.
    """
    rows: list[Any] = list(written.itertuples())
    with style():
        figure, panels = plt.subplots(
            len(SHOWN), len(rows), figsize=(max(5.5, 5 * len(rows)), 4.6), sharex="col", sharey="row", squeeze=False
        )
        for number, row in enumerate(rows):
            column = panels[:, number]
            own = features[(features["prompt"] == row.prompt) & features["generated"]].sort_values("position")
            own = own.assign(written=range(1, len(own) + 1))
            for axes, feature, colour in zip(column, SHOWN, COLOURS, strict=False):
                _draw_feature(axes, own, feature, colour)
                for place, line in ((row.loop_after, ":"), (row.ended_after, "--")):
                    if pd.notna(place):
                        axes.axvline(place + 1, color=MUTED, lw=1, ls=line)
            column[0].set_title(row.prompt)
            column[-1].set_xlabel("tokens written")
        for axes, label in zip(panels[:, 0], SHOWN.values(), strict=True):
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
    return figure


def plot_diversity(table: pd.DataFrame, model: str) -> Figure:
    """Measures of what was written against temperature, with intervals. Takes TEMPERATURES."""
    own = table[table["model"] == model].sort_values("temperature")
    with style():
        figure, panels = plt.subplots(2, 2, figsize=(9, 6), sharex=True)
        for axes, (title, (label, measures)) in zip(panels.flat, PANELS.items(), strict=True):
            for place, (measure, colour, marker) in enumerate(zip(measures, COLOURS, "osD^", strict=False)):
                rows = own[own["measure"] == measure]
                places = rows["temperature"] + (place - (len(measures) - 1) / 2) * APART
                reach = [rows["value"] - rows["value_low"], rows["value_high"] - rows["value"]]
                axes.errorbar(
                    places, rows["value"], yerr=reach, marker=marker, ms=4.5, capsize=3, lw=1.3, color=colour,
                    label=MEASURES[measure][1],
                )  # fmt: skip
            axes.set_title(title)
            axes.set_ylabel(label)
            if "perplexity" in measures:
                logarithmic_y(axes)
            else:
                axes.set_ylim(0, axes.get_ylim()[1] * HEADROOM)
                axes.legend(loc="upper center", ncols=(len(measures) + 1) // 2, fontsize=8)
        for axes in panels[-1]:
            axes.set_xlabel("temperature, with 95 % intervals over prompts")
    return figure


def _draw_words(axes: Axes, rows: pd.DataFrame, quantity: str, label: str | None) -> None:
    """A quantity of all words of one kind with its interval; `rows` are numbered by their places."""
    middle = rows[quantity]
    reach = [middle - rows[f"{quantity}_low"], rows[f"{quantity}_high"] - middle]
    colour = KIND_COLOURS[rows["kind"].iloc[0]]
    axes.errorbar(middle, rows.index, xerr=reach, fmt="o", ms=5, capsize=3, lw=1.2, color=colour, label=label)


def plot_insertions(inserted: pd.DataFrame, model: str) -> Figure:
    """Rarity of inserted words by token and as a whole, with intervals. Takes INSERTED.

    Hollow marks are a word's first token, crosses the token that stood there; the lines are the study's two figures.
    """
    own = inserted[inserted["model"] == model]
    own = own.assign(together=own["word"] == ALL_WORDS)
    own = own.sort_values(["kind", "together", "word_rarity"], ascending=[True, False, True], ignore_index=True)
    names = [f"all {row.kind} words" if row.together else str(row.word) for row in own.itertuples()]
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 1.9 + 0.22 * len(own)), sharey=True)
        for kind, rows in own.groupby("kind"):
            _draw_words(left, rows, "rarity", f"{kind} word")
            _draw_words(right, rows, "word_rarity", None)
            left.plot(rows["first_rarity"], rows.index, "o", ms=5, mfc="none", color=KIND_COLOURS[str(kind)])
        left.plot([], [], "o", ms=5, mfc="none", color=MUTED, label="its first token alone")
        left.plot(own["stood_rarity"], own.index, "x", ms=4, color=MUTED, label="token that stood there")
        for (label, value), line in zip(STUDY_RARITY.items(), (":", "--"), strict=True):
            left.axvline(value, color=MUTED, lw=0.9, ls=line, label=f"the study, {label} its word")
        left.set_yticks(own.index, names)
        left.set_title("Each token: mean over the word's")
        right.set_title("The whole word: sum over its tokens")
        for axes in (left, right):
            axes.set_xlim(left=0)
            axes.set_xlabel("rarity in nats, with 95 % intervals")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure
