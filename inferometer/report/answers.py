"""The top of the page: the question that the study asks, and its answer in five sentences, both from the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from inferometer.report.describe import changes, family, fewest_bits, grid
from inferometer.report.formats import interval, number, percent, ratio, ratio_interval
from inferometer.report.sentences import effect

FOUR = 4  # bits, from which on rounding is expected to hurt
SHARE_DIGITS = 1


@dataclass(frozen=True)
class Answer:
    """One of the five: what it is about, and a sentence for each model, or one for the study."""

    about: str
    sentences: list[str]


@dataclass(frozen=True)
class Answers:
    """What the top of the page says."""

    question: str
    answers: list[Answer]


def listed(words: Sequence[str], last: str = "and") -> str:
    """Words as a list in a sentence."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def question(measured: Sequence[str], shapes: Sequence[str], schemes: int, device_names: Sequence[str]) -> str:
    """What the study asks: of which models, under how many schemes beside float, and on what machine."""
    of = listed(measured) if measured else "no model with weights of its own"
    said = (
        f"What do {_counted(schemes, 'scheme')} of rounding, a KV cache on few bits and attention do to the accuracy, "
        f"the speed and the memory of {of} on {listed(device_names)}, and what does theory say they should?"
    )
    return f"{said} Of {listed(shapes)} only shapes are known, so time and bytes alone are asked." if shapes else said


def _float(name: str, rows: pd.DataFrame, reference: str) -> str:
    """What float costs, and the scheme with the fewest bytes that can't be told from it, or else the nearest one."""
    base = rows[rows["scheme"] == reference].iloc[0]
    said = (
        f"In float ({base['dtype']}) {name} has a perplexity of {number(base['perplexity'])} "
        f"{interval(base['perplexity_low'], base['perplexity_high'])} and weights of "
        f"{number(base['weights_bytes'] / 1e6)} MB"
    )
    smaller = rows[rows["weights_bytes"] < base["weights_bytes"]]
    if smaller.empty:
        return f"{said}; no scheme of this study takes fewer bytes."
    alike = smaller[smaller["ratio_low"] <= 1].sort_values(["weights_bytes", "ratio"])
    if alike.empty:
        best = smaller.sort_values("ratio").iloc[0]
        which = "no smaller scheme is as good, the nearest"
    else:
        best = alike.iloc[0]
        which = f"with the fewest bytes of the {len(alike)} that this text can't tell from it or finds better"
        which = "the one smaller scheme that this text can't tell from it" if len(alike) == 1 else which
    return (
        f"{said}; {which} is {best['scheme']}, at {ratio(best['ratio'])} "
        f"{ratio_interval(best['ratio_low'], best['ratio_high'])} times that perplexity in "
        f"{percent(best['weights_bytes'] / base['weights_bytes'], SHARE_DIGITS)} of the bytes."
    )


def _what(entry: Mapping[str, Any]) -> str:
    """What a scheme is, in brackets: how it rounds weights, and what it does before."""
    parts = [changes(entry), grid(entry.get("weights"), "float") if "weights" in entry else "–"]
    return "; ".join(part for part in parts if part != "–")


def _few_bits(name: str, rows: pd.DataFrame, reference: str, entries: Mapping[str, Any]) -> str:
    """Where few bits break a model and what mends it: the worst and the best scheme of each family of four or fewer."""
    rounded = rows[rows["scheme"] != reference]
    bits = rounded["scheme"].map(lambda scheme: fewest_bits(entries[scheme]))
    few = rounded[bits <= FOUR]
    if few.empty:
        if rounded.empty:
            return f"No scheme rounds {name}."
        worst: Any = next(rounded.sort_values("ratio", ascending=False).itertuples())
        return f"No scheme puts {name} on {FOUR} bits; of those above, the worst, {worst.scheme}, {effect(worst)}."
    parts = []
    for family_name, members in few.groupby(few["scheme"].map(lambda scheme: family(entries[scheme])), sort=False):
        ordered: list[Any] = list(members.sort_values("ratio").itertuples())
        best, worst = ordered[0], ordered[-1]
        part = f"as {family_name} {worst.scheme} {effect(worst)}"
        if len(ordered) > 1:
            part += f", and the best of {len(ordered)}, {best.scheme} ({_what(entries[best.scheme])}), {effect(best)}"
        parts.append(part)
    return f"{name} on {FOUR} bits or fewer: {'; '.join(parts)}."


def limits(
    schemes: pd.DataFrame,
    sampled: Mapping[str, tuple[int, int]],
    window_tokens: int,
    devices: Sequence[str],
    once_bits: Mapping[str, int],
    shapes: Sequence[str],
) -> str:
    """What the study can't tell, in one sentence.

    `schemes` is a SCHEMES table, `sampled` how many windows and questions were scored of each model, `devices` the kinds
    of device, `once_bits` the bits that models had been on before, `shapes` the models with random weights.
    """
    simulated = schemes.loc[schemes["engine"] == "simulated", "scheme"].nunique()
    skipped = schemes.loc[schemes["skipped"].notna(), "scheme"].unique().tolist()
    parts = []
    if sampled:
        windows, questions = (min(counts) for counts in zip(*sampled.values(), strict=True))
        parts.append(
            f"what other text, or more of it, would show, since perplexities rest on {windows} windows of "
            f"{window_tokens} tokens and accuracies on {questions} questions"
        )
    if simulated:
        parts.append(f"how fast the {_counted(simulated, 'simulated scheme')} would run")
    if skipped:
        parts.append(f"anything of {listed(skipped)}, which could not be run")
    parts.append("how another machine would do" + ("" if "cuda" in devices else ", a GPU above all, as none was used"))
    for model, bits in once_bits.items():
        parts.append(f"what {model} is like without the {bits} bits that its weights had been on before")
    if shapes:
        parts.append(f"anything of {listed(shapes)} but time and bytes, its weights being random")
    return f"It can't tell {'; nor '.join(parts)}."


def answers(
    question: str,
    schemes: pd.DataFrame,
    reference: str,
    entries: Mapping[str, Any],
    speed: Mapping[str, str],
    cache: Mapping[str, Sequence[str]],
    limits: str,
) -> Answers:
    """The question and at most five answers.

    `schemes` is a SCHEMES table in the study's order, `entries` are the configuration's schemes. `speed` has a sentence
    for each model that was timed, `cache` for each model what chapters say of its cache and its attention, as clauses.
    """
    rows = {str(model): own[own["ratio"].notna()] for model, own in schemes.groupby("model", sort=False)}
    found = [
        Answer("Bytes for accuracy", [_float(name, own, reference) for name, own in rows.items() if len(own)]),
        Answer("Few bits", [_few_bits(name, own, reference, entries) for name, own in rows.items() if len(own)]),
        Answer("Speed", list(speed.values())),
        Answer("Cache and attention", [f"{name}: {'; '.join(parts)}." for name, parts in cache.items() if parts]),
        Answer("What this study can't tell", [limits]),
    ]
    return Answers(question, [answer for answer in found if answer.sentences])
