"""What the page shows of the generation chapter: its tables and figures, and what these say in words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.generation.tables import ALL_WORDS, FEATURES, INSERTED, LOGGED, WRITTEN
from inferometer.report.formats import bounded, number, percent
from inferometer.report.page import Figure
from inferometer.report.reading import read_table
from inferometer.report.temperature import Temperature, temperature
from inferometer.tables import records
from inferometer.visible import visible

SALIENT_WORDS = 6
DARKEST = 6  # the style sheet has so many shades


@dataclass(frozen=True)
class Word:
    """A word of a prompt and how salient it is for the first written token."""

    text: str
    saliency: float


@dataclass(frozen=True)
class Token:
    """A token's text, its saliency, and how darkly it is shaded: 0 (not at all) to 6."""

    text: str
    saliency: float
    shade: int


@dataclass(frozen=True)
class Shaded:
    """A prompt's own tokens by their saliency for the first written token, and all by that for what follows them."""

    prompt_for_first: list[Token]
    prompt_for_all: list[Token]
    written_for_all: list[Token]


@dataclass(frozen=True)
class Model:
    """One model's part of the section."""

    name: str
    entropy_said: list[str]
    loops_said: list[str]
    saliency_said: list[str]
    insertions_said: list[str]
    headline: str
    features_figure: Figure
    insertions_figure: Figure
    logged: pd.DataFrame
    inserted: pd.DataFrame
    written: list[dict[str, Any]]
    shaded: dict[str, Shaded]
    temperature: Temperature


@dataclass(frozen=True)
class Generation:
    """All that the chapter's section shows."""

    models: list[Model]
    corpus: str
    traced: int
    prompts: Mapping[str, str]
    sampling: Mapping[str, Any]


def said_of_entropy(logged: pd.DataFrame, reported: Mapping[str, Any]) -> list[str]:
    """Where entropy goes as a model writes, beside the range that the study printed. Takes a model's rows of LOGGED."""
    said = []
    for prompt, rows in logged.groupby("prompt", sort=False):
        first, last = rows.iloc[0], rows.iloc[-1]
        said.append(
            f"After “{prompt}” the mean entropy is {number(first.entropy)} nats over the first {first.stretch_tokens} "
            f"tokens and {number(last.entropy)} over the last {last.stretch_tokens}; the mean rarity goes from "
            f"{number(first.rarity)} to {number(last.rarity)} nats."
        )
    low, high = reported["entropy"]
    inside = int(logged["entropy"].between(low, high).sum())
    said.append(
        f"{reported['study']} calls the entropy of {reported['model']} moderate, {low} to {high}: {inside} of our "
        f"{len(logged)} stretches have a mean in that range, all lie between {number(logged['entropy'].min())} and "
        f"{number(logged['entropy'].max())}."
    )
    return said


def said_of_loops(written: pd.DataFrame, logged: pd.DataFrame) -> list[str]:
    """Whether and where a model begins to repeat itself, and what that does to entropy. Takes WRITTEN and LOGGED."""
    said = []
    row: Any
    for row in written.itertuples():
        rows = logged[logged["prompt"] == row.prompt]
        last = rows.iloc[-1]
        share = f"{percent(last.repeated, 0)} of the last {last.stretch_tokens} tokens end a passage of eight or more"
        loop = "no loop of a single period runs to the end"
        if pd.notna(row.loop_after):
            turn, start = int(row.loop_period), int(row.loop_after)
            loop = f"a loop of {turn} tokens begins after {start} tokens and goes on to the end"
        end = f" The text as such had ended after {int(row.ended_after)} tokens." if pd.notna(row.ended_after) else ""
        said.append(f"After “{row.prompt}” {share} that was written before; {loop}.{end}")
    by_repetition = logged.sort_values("repeated", kind="stable")
    least, most = by_repetition.iloc[0], by_repetition.iloc[-1]
    if most.repeated > least.repeated:
        direction = "lower" if most.entropy < least.entropy else "no lower"
        said.append(
            f"Where most is repeated ({percent(most.repeated, 0)} of a stretch) the mean entropy is {direction} than "
            f"where least is ({percent(least.repeated, 0)}): {number(most.entropy)} against {number(least.entropy)} "
            "nats."
        )
    return said


def _words(tokens: pd.DataFrame) -> Iterator[Word]:
    """The words of a prompt's own tokens, each as salient as its most salient token; a blank begins a word."""
    starts = tokens["text"].str.match(r"\s").cumsum()
    for _, own in tokens.groupby(starts):
        text = "".join(own["text"]).strip(' \n.,;:!?"')
        if text:
            yield Word(text, float(own["first_saliency_norm"].max()))


def salient_words(features: pd.DataFrame) -> list[Word]:
    """The words of one prompt, the most salient for the first written token first. Takes its rows of FEATURES."""
    own = features[features["own"]].sort_values("position")
    return sorted(_words(own), key=lambda word: -word.saliency)


def _shades(tokens: pd.DataFrame, column: str) -> list[Token]:
    """Tokens shaded on a logarithmic scale: a shade lighter stands for half the saliency, the darkest for the most."""
    most = tokens[column].max()
    return [
        Token(text, value, max(0, DARKEST - int(math.log2(most / value))) if value > 0 else 0)
        for text, value in zip(tokens["text"], tokens[column].astype(float), strict=True)
    ]


def shaded(features: pd.DataFrame, ended_after: int | None) -> Shaded:
    """The tokens of one prompt and of what was written after it, up to its end. Takes the prompt's rows of FEATURES."""
    ordered = features.sort_values("position")
    own, written = ordered[ordered["own"]], ordered[ordered["generated"]]
    whole = _shades(pd.concat([own, written[:ended_after]]), "saliency_norm")
    return Shaded(_shades(own, "first_saliency_norm"), whole[: len(own)], whole[len(own) :])


def said_of_saliency(features: pd.DataFrame, prompts: Mapping[str, str], reported: Mapping[str, Any]) -> list[str]:
    """Which words of the prompts decide on the first written token, beside those the study names. Takes FEATURES."""
    said = []
    for name, text in prompts.items():
        words = salient_words(features[features["prompt"] == name])
        listed = ", ".join(f"“{visible(word.text)}”" for word in words[:SALIENT_WORDS])
        said.append(f"For the first token after “{name}” the most salient words are, in this order, {listed}.")
        if text == reported["prompt"]:
            best = [word.text.lower() for word in words[: len(reported["words"])]]
            shared = [word for word in reported["words"] if word in best]
            said.append(
                f"{reported['study']} names {', '.join(reported['words'])} in this prompt; {len(shared)} of these "
                f"{len(reported['words'])} are among as many most salient words here, of {len(words)} in all."
            )
    return said


def said_of_insertions(inserted: pd.DataFrame, reported: Mapping[str, Any]) -> list[str]:
    """What inserted words are to a model, beside the study's one word. Takes a model's rows of INSERTED."""
    together = inserted[inserted["word"] == ALL_WORDS].set_index("kind")
    rare: Any = together.loc["rare"]
    common: Any = together.loc["common"]
    said = [
        f"Words that do not belong, in {rare.contexts} texts: {rare.words} rare ones have a mean rarity of "
        f"{bounded(rare, 'rarity')} nats a token and {bounded(rare, 'word_rarity')} as whole words, {common.words} "
        f"common ones {bounded(common, 'rarity')} and {bounded(common, 'word_rarity')}. The token that stood there "
        f"has {number(rare.stood_rarity)}.",
        f"Less that of the token that stood there, it is {bounded(rare, 'increase')} nats a token for rare words and "
        f"{bounded(common, 'increase')} for common ones; of the next 16 tokens the mean rarity changes by "
        f"{bounded(rare, 'after_increase')} and {bounded(common, 'after_increase')}.",
    ]
    if common.rarity_low > rare.rarity_high and rare.word_rarity_low > common.word_rarity_high:
        said.append(
            "By the token, common words surprise more than rare ones: a rare word is cut into several tokens, and "
            "those after the first follow from the ones before. Only as whole words are the rare ones rarer."
        )
    one = inserted[inserted["word"] == reported["word"]]
    if len(one):
        said.append(_one_word(one.iloc[0], inserted[inserted["kind"] == one.iloc[0].kind], reported))
    return said


def _one_word(row: Any, of_kind: pd.DataFrame, reported: Mapping[str, Any]) -> str:
    """Whether the study's word stands for others of its kind; `of_kind` are the rows of INSERTED of all of them."""
    before, after = reported["rarity"]
    mean = of_kind[of_kind["word"] == ALL_WORDS].iloc[0]
    each = of_kind[of_kind["word"] != ALL_WORDS]["rarity"]
    verdict = "lies" if mean.rarity_low <= row.rarity <= mean.rarity_high else "does not lie"
    return (
        f"{reported['study']} saw rarity go from {before} to {after} with “{reported['word']}”, once. Here that word "
        f"has {bounded(row, 'rarity')} nats a token against {number(row.stood_rarity)} for what stood there. It "
        f"{verdict} within the interval of the mean of all {mean.words} {row.kind} words, of which the least rare has "
        f"{number(each.min())} and the rarest {number(each.max())}: which word is taken decides on the figure."
    )


def _headline(name: str, logged: pd.DataFrame, inserted: pd.DataFrame) -> str:
    """The chapter in one sentence."""
    last = logged.sort_values("repeated", kind="stable").iloc[-1]
    rare = inserted[(inserted["word"] == ALL_WORDS) & (inserted["kind"] == "rare")].iloc[0]
    return (
        f"{name}, writing greedily, repeats itself in {percent(last.repeated, 0)} of a stretch of "
        f"{last.stretch_tokens} tokens at worst, at a mean entropy of {number(last.entropy)} nats; a rare word where "
        f"it does not belong has a rarity of {bounded(rare, 'rarity')} nats a token, what stood there "
        f"{number(rare['stood_rarity'])}."
    )


def _model(
    name: str, config: Mapping[str, Any], results: Path, tables: Sequence[pd.DataFrame], printed: Mapping[str, Any]
) -> Model:
    folder, prompts, reported = results / name / "generation", config["generation"]["prompts"], printed["features"]
    places = {prompt: place for place, prompt in enumerate(prompts)}
    logged, inserted = (table[table["model"] == name].reset_index(drop=True) for table in tables)
    features = read_table(FEATURES, folder / "features.parquet")
    logged, written = (
        table.sort_values("prompt", key=lambda column: column.map(places), kind="stable", ignore_index=True)
        for table in (logged, read_table(WRITTEN, folder / "written.parquet"))
    )
    entropy_said, insertions_said = said_of_entropy(logged, reported), said_of_insertions(inserted, reported)
    return Model(
        name=name,
        entropy_said=entropy_said,
        loops_said=said_of_loops(written, logged),
        saliency_said=said_of_saliency(features, prompts, reported),
        insertions_said=insertions_said,
        headline=_headline(name, logged, inserted),
        features_figure=Figure(
            folder / "features.svg",
            "Entropy of the distribution that each written token is drawn from, and the token's rarity: single tokens, "
            "and the mean of the last 16. Shaded: passages of eight tokens or more that were written before. Dotted: a "
            "loop begins; dashed: the text has ended.",
            f"Line charts of entropy and rarity along what {name} wrote after each prompt.",
        ).saying(entropy_said),
        insertions_figure=Figure(
            folder / "insertions.svg",
            "Rarity of words in the middle of texts where they do not belong, mean over texts with 95 % intervals: by "
            "token (left; hollow: the first token alone, cross: the token that stood there, lines: the study's figures "
            "without and with its word), and of the whole word (right).",
            f"Dot charts of the rarity of inserted words to {name}, by token and as whole words.",
        ).saying(insertions_said),
        logged=logged,
        inserted=inserted,
        written=records(written),
        shaded={
            row["prompt"]: shaded(features[features["prompt"] == row["prompt"]], row["ended_after"])
            for row in records(written)
        },
        temperature=temperature(name, list(sampled_prompts(config)), results, printed["temperature"]),
    )


def sampled_prompts(config: Mapping[str, Any]) -> dict[str, str]:
    """The prompts that are sampled, by name: those that are traced, and more."""
    own = config["generation"]
    return {**own["prompts"], **own["sampling"]["prompts"]}


def generation(config: Mapping[str, Any], results: Path, reported: Mapping[str, Any]) -> Generation:
    """What the chapter's section shows, from the folder of results and the figures that the study printed."""
    tables = [
        read_table(table, results / "summary" / file)
        for table, file in ((LOGGED, "generation.parquet"), (INSERTED, "insertions.parquet"))
    ]
    measured = [name for name in config["study"]["models"] if config["models"][name]["source"] != "architecture"]
    settings = config["generation"]
    return Generation(
        models=[_model(name, config, results, tables, reported) for name in measured],
        corpus=settings["insertions"]["corpus"],
        traced=len(settings["prompts"]),
        prompts=sampled_prompts(config),
        sampling=settings["sampling"],
    )
