"""What the page shows of writing by chance: what temperature does to texts, in words, and samples side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inferometer.generation.tables import MEASURES, SAMPLES, TEMPERATURES
from inferometer.report.formats import bounded, percent
from inferometer.report.page import Figure
from inferometer.report.reading import read_table
from inferometer.tables import records

SHOWN_CHARACTERS = 200
SHOWN_SEEDS = 3  # of every prompt and temperature


@dataclass(frozen=True)
class Temperature:
    """What one model wrote by chance: sentences, a figure, a row for each measure, and samples by prompt."""

    said: list[str]
    figure: Figure
    temperatures: list[float]
    measures: dict[str, list[Any]]
    samples: dict[str, list[dict[str, Any]]]


def _verdict(row: Any, sign: int) -> str:
    """Whether a change goes the way that was claimed, as far as its interval tells."""
    ends = sorted((sign * row["change_low"], sign * row["change_high"]))
    if ends[0] > 0:
        return "as claimed"
    return "against the claim" if ends[1] < 0 else "which these prompts can't tell from none"


def said_of_temperature(table: pd.DataFrame, reported: Mapping[str, Any]) -> list[str]:
    """What temperature does to texts, beside what the study says of it. Takes a model's rows of TEMPERATURES."""
    rows: dict[Any, Any] = dict(table.set_index(["measure", "temperature"]).iterrows())
    temperatures = sorted(table["temperature"].unique())
    lowest, highest = temperatures[0], temperatures[-1]
    first = next(temperature for temperature in temperatures if temperature > 0)
    one = min(temperatures[1:], key=lambda temperature: abs(temperature - 1))

    def at(measure: str, temperature: float) -> str:
        return bounded(rows[measure, temperature])

    def share(measure: str, temperature: float, digits: int = 0) -> str:
        return percent(rows[measure, temperature]["value"], digits)

    def change(measure: str, sign: int) -> str:
        row = rows[measure, one]
        return f"{bounded(row, 'change')}, {_verdict(row, sign)}"

    greedy = (
        "At temperature 0 the likeliest token is written every time, so all seeds write the same text; it is written "
        "once, and counts as often as there are seeds."
    )
    return [
        *([greedy] if lowest == 0 else []),
        f"At temperature {first:g}, {share('unique', first)} of a prompt's samples are different texts, with a "
        f"self-BLEU of {at('self_bleu', first)}; at {one:g} it is {share('unique', one)}, with {at('self_bleu', one)}. "
        f"Distinct-2 goes from {at('distinct_2', lowest)} at {lowest:g} to {at('distinct_2', one)} at {one:g}.",
        f"What is written at {first:g} has a perplexity of {at('perplexity', first)} under the model itself, at "
        f"{one:g} {at('perplexity', one)} and at {highest:g} {at('perplexity', highest)}. The model's own "
        f"entropy along these texts is {at('entropy', first)}, {at('entropy', one)} and {at('entropy', highest)} nats.",
        f"Of runs of 4 tokens, {share('repeated_4', lowest, 1)} stand earlier in the same text at {lowest:g}, "
        f"{share('repeated_4', one, 1)} at {one:g} and {share('repeated_4', highest, 1)} at {highest:g}.",
        f"{reported['study']} says of temperatures near 0 that {reported['low']}, and of those near 1 that "
        f"{reported['high']}, without figures. From {lowest:g} to {one:g}, paired by prompt, self-BLEU changes by "
        f"{change('self_bleu', -1)}; distinct-2 by {change('distinct_2', 1)}; the share of repeated 4-grams within a "
        f"text by {change('repeated_4', -1)}; and perplexity, as far as it stands for coherence, by "
        f"{change('perplexity', 1)}.",
    ]


def _start(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"


def side_by_side(samples: pd.DataFrame, prompts: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """By prompt, in that order, the rows of SAMPLES of the first seeds at every temperature, with their beginnings."""
    shown = samples.sort_values(["temperature", "seed"]).groupby(["prompt", "temperature"]).head(SHOWN_SEEDS)
    rows = shown.assign(text=shown["text"].map(_start), perplexity=np.exp(shown["nll"]))
    return {prompt: records(rows[rows["prompt"] == prompt]) for prompt in prompts}


def temperature(name: str, prompts: Sequence[str], results: Path, reported: Mapping[str, Any]) -> Temperature:
    """What is shown of one model's samples after these prompts."""
    folder = results / name / "generation"
    table = read_table(TEMPERATURES, results / "summary" / "diversity.parquet")
    own = table[table["model"] == name]
    ordered = own.sort_values("temperature")
    said = said_of_temperature(own, reported)
    return Temperature(
        said=said,
        figure=Figure(
            folder / "diversity.svg",
            "What temperature does to the samples of a prompt: how much they differ from each other, how much each "
            "repeats itself, how likely the model holds them, and how sure it is along them. Means over prompts with "
            "95 % bootstrap intervals over prompts.",
            f"Line charts of diversity, repetition, perplexity and entropy of {name}'s samples against temperature.",
        ).saying(said),
        temperatures=ordered["temperature"].unique().tolist(),
        measures={
            label: [row for _, row in ordered[ordered["measure"] == measure].iterrows()]
            for measure, (_, label) in MEASURES.items()
        },
        samples=side_by_side(read_table(SAMPLES, folder / "samples.parquet"), prompts),
    )
