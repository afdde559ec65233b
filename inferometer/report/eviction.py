"""What the page shows of evicted sinks: a table, a figure, and what they say in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.attention.eviction_summary import FIRST_TOKENS, kept
from inferometer.attention.eviction_tables import EVICTED
from inferometer.report.formats import bounded, interval, number
from inferometer.report.page import Figure
from inferometer.report.reading import read_table

ALIKE = 1e-3  # nats, by which a token's nll may differ where the same tokens are seen


@dataclass(frozen=True)
class Arm:
    """One way to keep tokens: its rows of EVICTED before the first eviction, right after it, and all after it."""

    sinks: int | None
    kept: str
    before: Any
    first: Any
    after: Any


@dataclass(frozen=True)
class Model:
    """One model's part."""

    name: str
    said: list[str]
    finding: str | None
    figure: Figure
    arms: list[Arm]


@dataclass(frozen=True)
class Eviction:
    """All that the part of the section shows."""

    models: list[Model]
    corpus: str


def _arms(evicted: pd.DataFrame) -> list[Arm]:
    """The arms of one model's rows of EVICTED: everything, a window, and windows with ever more sinks."""
    arms = []
    for _, own in evicted.sort_values("sink_tokens", na_position="first", kind="stable").groupby("arm", sort=False):
        rows = {span: rows.iloc[0] for span, rows in own.groupby("span")}
        after = rows["after"]
        sinks = None if pd.isna(after["sink_tokens"]) else int(after["sink_tokens"])
        arms.append(Arm(sinks, kept(int(after["window_tokens"]), sinks), rows["before"], rows["first"], after))
    return arms


def _said_of_beginning(plain: Arm, with_sinks: list[Arm]) -> str:
    """Whether arms agree until something is evicted, and what happens then."""
    apart = max(arm.before["difference"] for arm in (plain, *with_sinks))
    same = "all is as with a full cache" if apart <= ALIKE else "they differ all the same"
    rises = plain.first["increase_low"] > 0
    what = ": the rise comes with the loss of the very first token" if rises else ", which shows no rise yet"
    return (
        f"Nothing is evicted from a window until its {plain.after['window_tokens']} tokens are read, and {same}: no "
        f"token's nll is off by more than {number(apart, 1)} nats. Then the first token of the text goes. Over the "
        f"{FIRST_TOKENS} tokens after that the mean nll is {bounded(plain.first, 'increase')} nats above that of the "
        f"full cache{what}."
    )


def _said_of_sinks(arm: Arm) -> str:
    """How close a window with sinks comes to the full cache."""
    row = arm.after
    low, high = row["increase_low"], row["increase_high"]
    verdict = "that is above the full cache's" if low > 0 else "that is below the full cache's"
    if low <= 0 <= high:
        verdict = "that can't be told from the full cache's"
    return (
        f"Of the same size, {arm.kept} tokens: {bounded(row, 'perplexity')}, {bounded(row, 'increase')} nats a token "
        f"more than with everything; {verdict}. Against the plain window {bounded(row, 'saved')} nats are saved."
    )


def _said_of_study(with_sinks: list[Arm], reported: Mapping[str, Any]) -> list[str]:
    """The paper's figures, as ratios, beside ours with as many sinks."""
    own = [arm.after for arm in with_sinks if arm.sinks == reported["sinks"]]
    if not own:
        return []
    low, mean, high = (math.exp(own[0][name]) for name in ("saved_low", "saved", "saved_high"))
    ratios = {name: entry["window"] / entry["sinks"] for name, entry in reported["perplexity"].items()}
    listed = ", ".join(f"{number(value)} ({name})" for name, value in ratios.items())
    verdict = "within that range" if min(ratios.values()) <= mean <= max(ratios.values()) else "outside that range"
    return [
        f"{reported['study']} report perplexities of a plain window over those with {reported['sinks']} sinks of "
        f"{listed}, on books and with longer windows. Here it is {number(mean)} {interval(low, high)}: {verdict}."
    ]


def said_of_eviction(evicted: pd.DataFrame, reported: Mapping[str, Any]) -> list[str]:
    """What is lost with the first tokens, and what keeping some saves. Takes a model's rows of EVICTED."""
    refused = evicted["reason"].dropna()
    if len(refused):
        return [f"Tokens can't be evicted here: {refused.iloc[0]}."]
    full, plain, *with_sinks = _arms(evicted)
    row = plain.after
    return [
        _said_of_beginning(plain, with_sinks),
        f"From there to the end of {row['texts']} texts of {row['last_position'] + 1} tokens the perplexity is "
        f"{bounded(full.after, 'perplexity')} with everything kept and {bounded(row, 'perplexity')} with {plain.kept} "
        f"tokens: {bounded(row, 'increase')} nats a token more.",
        *(_said_of_sinks(arm) for arm in with_sinks),
        *_said_of_study(with_sinks, reported),
    ]


def _finding(evicted: pd.DataFrame) -> str | None:
    """The part in a clause; None where nothing could be evicted."""
    if evicted["reason"].notna().any():
        return None
    _, plain, *_, most = _arms(evicted)
    return (
        f"with a cache of only {plain.kept} tokens it predicts text by {bounded(plain.after, 'increase')} nats a token "
        f"worse than with all, with {most.kept} by {bounded(most.after, 'increase')}"
    )


def _model(name: str, results: Path, evicted: pd.DataFrame, reported: Mapping[str, Any]) -> Model:
    own = evicted[evicted["model"] == name]
    said = said_of_eviction(own, reported)
    return Model(
        name=name,
        said=said,
        finding=_finding(own),
        figure=Figure(
            results / name / "attention/eviction.svg",
            "Perplexity by what the cache keeps, for each quarter of a window (left); nats a token above the full "
            "cache (middle); the same token by token around the first eviction, mean over texts (right). Bands: 95 % "
            "intervals over texts, in the middle paired. Dashed: the window is full.",
            f"Line charts of {name}'s perplexity against position, with full and windowed caches.",
        ).saying(said),
        arms=_arms(own),
    )


def eviction(config: Mapping[str, Any], results: Path, reported: Mapping[str, Any]) -> Eviction:
    """What the part shows, from the folder of results and the figures that the paper printed."""
    evicted = read_table(EVICTED, results / "summary/eviction.parquet")
    measured = [name for name in config["study"]["models"] if config["models"][name]["source"] != "architecture"]
    return Eviction(
        models=[_model(name, results, evicted, reported["eviction"]) for name in measured],
        corpus=config["attention"]["eviction"]["corpus"],
    )
