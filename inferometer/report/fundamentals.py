"""The teaching experiments on the page: their tables and figures, and what these say in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.fundamentals.tables import DECODER_CHECKS, DECODER_SPEED, DIGIT_ACCURACY
from inferometer.report.formats import enumerated, number, percent
from inferometer.report.page import Figure
from inferometer.report.reading import read_table
from inferometer.report.sentences import ALIKE

EIGHT = 8  # bits of the study's classifier
REPLACED = {"last": "the last layer", "all": "all layers"}


@dataclass(frozen=True)
class Compared:
    """Speed-ups at one length: those that other studies printed, then ours; none where one has no such length."""

    tokens: int
    reported: list[float | None]
    prompt: float
    prompt_cpu: float
    written: float
    written_cpu: float


@dataclass(frozen=True)
class Fundamentals:
    """All that the chapter's section shows."""

    image_set: str
    attribution: str | None
    licence: str | None
    epochs: int
    digits: pd.DataFrame
    digits_said: list[str]
    digits_figure: Figure
    checks: pd.DataFrame
    checks_said: str
    speed: pd.DataFrame
    speed_said: list[str]
    decoder_figure: Figure
    studies: list[str]
    compared: list[Compared]


def said_of_digits(accuracy: pd.DataFrame, claim: str) -> list[str]:
    """What replacing layers did, by a DIGIT_ACCURACY table, and whether it bears out what the study `claim`s."""
    said = []
    kept: dict[str, list[int]] = {}
    for which, name in REPLACED.items():
        rows = accuracy[accuracy["replaced"] == which].sort_values("bits", ascending=False)
        kept[which] = rows["bits"][(rows["change_low"] <= 0) & (rows["change_high"] >= 0)].tolist()
        lost = [_change(row) for row in rows[rows["change_high"] < 0].itertuples()]
        same = "no number of bits is without a difference"
        if kept[which]:
            same = f"{enumerated(kept[which])} bits make no difference that these images could tell from chance"
        said.append(f"With {name} on codes, {'; '.join([same, *lost])}.")
    if EIGHT in set(accuracy["bits"]):
        verdict = "bears that out" if all(EIGHT in bits for bits in kept.values()) else "contradicts that"
        row = accuracy[(accuracy["bits"] == EIGHT) & (accuracy["replaced"] == "last")].iloc[0]
        said.append(
            f"{claim} Our evidence {verdict} for 8 bits: {percent(row.accuracy)} after against "
            f"{percent(row.float_accuracy)} before, with an SQNR of {number(row.sqnr_db)} dB and a mean squared error "
            f"of {number(row.output_mse, 2)}."
        )
    return said


def _change(row: Any) -> str:
    change, low, high = (percent(part).removesuffix(" %") for part in (row.change, row.change_low, row.change_high))
    return f"{row.bits} bits change the accuracy by {change} points [{low}, {high}]"


def said_of_checks(checks: pd.DataFrame) -> str:
    """Whether the decoder is what it claims to be, by a DECODER_CHECKS table."""
    failed = checks[~checks["holds"]]
    worst = checks.nlargest(1, "difference").iloc[0]
    measured = (
        f"the largest difference is {number(worst.difference, 2)} ({worst.check}), allowed are {worst.tolerance:g}"
    )
    if failed.empty:
        return f"All {len(checks)} checks hold: {measured}."
    names = ", ".join(sorted(failed["check"].unique()))
    return f"{len(failed)} of {len(checks)} checks fail ({names}): {measured}. Nothing below can be relied on."


def said_of_speed(speed: pd.DataFrame, studies: list[str], compared: list[Compared]) -> list[str]:
    """What the cache gains, whether the machine was quiet, and how that stands to what others printed."""
    written = speed[(speed["varied"] == "new_tokens") & speed["cache"]].sort_values("new_tokens")
    least, most = written.iloc[0], written.iloc[-1]
    said = [
        f"The cache makes writing {least.new_tokens} tokens {number(least.speedup, 2)} times as fast and writing "
        f"{most.new_tokens:,} tokens {number(most.speedup, 2)} times."
    ]
    if contaminated := int(speed["contaminated"].sum()):
        said.append(
            f"Other work ran on the machine during {contaminated} of {int(speed['samples'].sum())} samples: read the "
            "speed-ups, best those of processor time, and not the milliseconds."
        )
    for number_of_study, study in enumerate(studies):
        pairs = [(row.prompt, row.reported[number_of_study]) for row in compared]
        ratios = [ours / theirs for ours, theirs in pairs if theirs is not None]
        if not ratios:
            continue
        verdict = "contradicts theirs" if max(ratios) < 1 / ALIKE or min(ratios) > ALIKE else "bears theirs out"
        said.append(
            f"At the same prompts our speed-ups are {number(min(ratios), 2)} to {number(max(ratios), 2)} times those "
            f"of {study}: our evidence {verdict}."
        )
    return said


def _compared(speed: pd.DataFrame, studies: list[Mapping[str, Any]]) -> list[Compared]:
    ours = speed[speed["cache"]]
    prompts, written = (ours[ours["varied"] == varied].set_index(varied) for varied in ("prompt_tokens", "new_tokens"))
    printed = [
        {tokens: without / cached for tokens, (without, cached) in study["latency_s"].items()} for study in studies
    ]
    return [
        Compared(
            tokens=int(tokens),
            reported=[study.get(int(tokens)) for study in printed],
            prompt=prompts.loc[tokens, "speedup"],
            prompt_cpu=prompts.loc[tokens, "cpu_speedup"],
            written=written.loc[tokens, "speedup"],
            written_cpu=written.loc[tokens, "cpu_speedup"],
        )
        for tokens in prompts.index.sort_values()
    ]


def fundamentals(config: Mapping[str, Any], results: Path, reported: Mapping[str, Any]) -> Fundamentals:
    """What the chapter's section shows, from the folder of results and the figures that other studies printed."""
    settings = config["fundamentals"]["digits"]
    entry = config["image_sets"][settings["image_set"]]
    accuracy = read_table(DIGIT_ACCURACY, results / "summary/digits.parquet")
    checks = read_table(DECODER_CHECKS, results / "fundamentals/decoder_checks.parquet")
    speed = read_table(DECODER_SPEED, results / "summary/decoder.parquet")
    studies = [study["study"] for study in reported["decoder"]]
    compared = _compared(speed, reported["decoder"])
    digits_said, speed_said = (
        said_of_digits(accuracy, reported["classifier"]["claim"]),
        said_of_speed(speed, studies, compared),
    )
    return Fundamentals(
        image_set=settings["image_set"],
        attribution=entry.get("attribution"),
        licence=entry.get("licence"),
        epochs=settings["epochs"],
        digits=accuracy.sort_values(["replaced", "bits"], ascending=False, ignore_index=True),
        digits_said=digits_said,
        digits_figure=Figure(
            results / "fundamentals/digits.svg",
            "Left: share of test images that are read right, mean over the networks, with 95 % intervals over images; "
            "the dashed line is the float networks. Right: power of the float logits over that of the difference. "
            "Where the grid is fine, each bit less costs 6.02 dB (dashed); where it is coarse, more.",
            "Line charts of accuracy and of the signal-to-noise ratio of the logits against bits.",
        ).saying(digits_said),
        checks=checks.groupby(["check", "kind"], as_index=False).agg(
            prompts=("case", "size"),
            difference=("difference", "max"),
            tolerance=("tolerance", "max"),
            holds=("holds", "all"),
        ),
        checks_said=said_of_checks(checks),
        speed=speed,
        speed_said=speed_said,
        decoder_figure=Figure(
            results / "fundamentals/decoder.svg",
            "Median latency with quartiles, both axes logarithmic; the numbers are the speed-ups. Left: without a "
            "cache every token is computed again for each new one, so that long texts cost the square of their length "
            "and more; with it, hardly more than their length. Right: the prompt has to be read once in any case.",
            "Line charts of latency with and without the cache, against tokens written and tokens of the prompt.",
        ).saying(speed_said),
        studies=studies,
        compared=compared,
    )
