"""The top of the page: the question that the study asks, and its answer in five sentences, both from the tables."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from inferometer.manifest import Manifest
from inferometer.report.describe import changes, family, fewest_bits, grid
from inferometer.report.formats import enumerated, interval, number, percent, ratio, ratio_interval
from inferometer.report.marks import once_bits
from inferometer.report.sentences import effect

FOUR = 4  # bits, from which on rounding is expected to hurt


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


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def question(measured: Sequence[str], shapes: Sequence[str], asked: Sequence[str], device_names: Sequence[str]) -> str:
    """What the study asks: what is `asked` about, of which models, and on what machine."""
    said = []
    if measured and asked:
        where = f" on {enumerated(device_names)}" if device_names else ""
        said.append(
            f"What do {enumerated(asked)} do to the accuracy, the speed and the memory of {enumerated(measured)}"
            f"{where}, and what does theory say they should?"
        )
    if shapes:
        said.append(f"What time and bytes does the bare shape of {enumerated(shapes)} take?")
    return " ".join(said)


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
        which = "all smaller schemes are worse by this text; the nearest is"
    else:
        best = alike.iloc[0]
        smallest = "the one" if len(alike) == 1 else f"the smallest of {len(alike)}"
        which = f"{smallest} with fewer bytes that this text doesn't show to be worse is"
    return (
        f"{said}; {which} {best['scheme']}, with {percent(best['weights_bytes'] / base['weights_bytes'])} of the bytes "
        f"at {ratio(best['ratio'])} {ratio_interval(best['ratio_low'], best['ratio_high'])} times the perplexity."
    )


def _mended(best: Mapping[str, Any], worst: Mapping[str, Any]) -> str:
    """What one scheme does that another doesn't, in brackets; nothing where they differ in their inputs alone."""
    grids = [grid(entry.get("weights"), "float").split(", ") for entry in (best, worst)]
    more = [part for part in grids[0] if part not in grids[1]]
    before = changes(best) if changes(best) not in ("–", changes(worst)) else ""
    words = "; ".join(part for part in (before, ", ".join(more)) if part)
    return f" ({words})" if words else ""


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
            mended = _mended(entries[best.scheme], entries[worst.scheme])
            part += f", and the best of {len(ordered)}, {best.scheme}{mended}, {effect(best)}"
        parts.append(part)
    return f"{name} on {FOUR} bits or fewer: {'; '.join(parts)}."


def limits(
    schemes: pd.DataFrame,
    counts: Mapping[str, tuple[int, int]],
    window_tokens: int,
    devices: Collection[str],
    once: Mapping[str, int],
    shapes: Sequence[str],
) -> str:
    """What the study can't tell, in one sentence.

    `schemes` is a SCHEMES table, `counts` how many windows and questions were scored of each model, `devices` the kinds
    of device, `once` the bits that models had been on before, `shapes` the models with random weights.
    """
    simulated = schemes.loc[schemes["engine"] == "simulated", "scheme"].nunique()
    skipped = schemes.loc[schemes["skipped"].notna(), "scheme"].unique().tolist()
    parts = []
    if counts:
        windows, questions = (min(units) for units in zip(*counts.values(), strict=True))
        parts.append(
            f"what other text, or more of it, would show, since perplexities rest on {windows} windows of "
            f"{window_tokens} tokens and accuracies on {questions} questions"
        )
    if simulated:
        parts.append(f"how fast the {_counted(simulated, 'simulated scheme')} would run")
    if skipped:
        parts.append(f"anything of {enumerated(skipped)}, which could not be run")
    parts.append("how another machine would do" + ("" if "cuda" in devices else ", a GPU above all, as none was used"))
    for model, bits in once.items():
        parts.append(f"what {model} is like without the {bits} bits that its weights had been on before")
    if shapes:
        parts.append(f"anything of {enumerated(shapes)} but time and bytes, its weights being random")
    return f"It can't tell {'; nor '.join(parts)}."


def sampled(perplexity: pd.DataFrame, accuracy: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """How many windows and how many questions were scored of each model, by a PERPLEXITY and an ACCURACY table."""
    questions = accuracy.drop_duplicates(["model", "question_set"]).groupby("model")["items"].sum()
    windows = perplexity.groupby("model")["windows"].min()
    return {str(name): (int(count), int(questions.get(name, 0))) for name, count in windows.items()}


def _of_cache_and_attention(measured: Sequence[str], chapters: Mapping[str, Any]) -> list[str]:
    """What the chapters found of each model's cache and attention, in a sentence for each."""
    said = []
    for name in measured:
        own = {chapter: [model for model in chapters[chapter].models if model.name == name] for chapter in chapters}
        clauses = [clause for model in own["profiling"] for clause in model.cache_gains]
        clauses += [clause for model in own["kv_cache"] for clause in model.gains]
        clauses += [model.finding for model in own["attention"] + own["eviction"] if model.finding]
        said += [f"{name}: {'; '.join(clauses)}."] if clauses else []
    return said


def answers(
    config: Mapping[str, Any],
    schemes: pd.DataFrame,
    runs: pd.DataFrame,
    unlike: Sequence[str],
    manifests: Sequence[Manifest],
    counts: Mapping[str, tuple[int, int]],
    chapters: Mapping[str, Any],
) -> Answers:
    """The question and at most five answers.

    `schemes` is a SCHEMES table in the study's order, `runs` a RUN table, `unlike` says what follows where machines are
    not alike, `counts` comes from `sampled`, and `chapters` are the contents of profiling, kv_cache, attention and
    eviction by these names.
    """
    reference, entries = config["evaluation"]["reference"], config["schemes"]
    shapes = [manifest.name for manifest in manifests if manifest.random_weights]
    measured = [manifest.name for manifest in manifests if manifest.name not in shapes]
    once = {manifest.name: bits for manifest in manifests if (bits := once_bits(manifest)) is not None}
    rounding = len([name for name in config["study"]["schemes"] if name != reference])
    asked = [
        *([_counted(rounding, "scheme") + " of rounding"] if rounding else []),
        *(["a KV cache on few bits"] if chapters["kv_cache"].models else []),
        *(["evicted attention sinks"] if chapters["eviction"].models else []),
    ]
    rows = {str(model): own for model, own in schemes[schemes["ratio"].notna()].groupby("model", sort=False)}
    found = [
        Answer("Bytes for accuracy", [_float(name, own, reference) for name, own in rows.items()]),
        Answer("Few bits", [_few_bits(name, own, reference, entries) for name, own in rows.items()]),
        Answer("Speed", [model.answer for model in chapters["profiling"].models if model.answer]),
        Answer("Cache and attention", _of_cache_and_attention(measured, chapters)),
        Answer(
            "What this study can't tell",
            [
                limits(schemes, counts, config["evaluation"]["window_tokens"], runs["device"].unique(), once, shapes),
                *unlike,
            ],
        ),
    ]
    names = runs["device_name"].unique().tolist()
    return Answers(question(measured, shapes, asked, names), [answer for answer in found if answer.sentences])
