"""What the page shows of the attention chapter: its tables and figures, and what these say in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.attention.figures import arm
from inferometer.attention.names import ALL_TEXTS, BOS, DUMMIES, FLOAT, OWN, REPEATED
from inferometer.attention.tables import ATTENTION_SCHEMES, HEADS, MAPS, PHASES, RESIDUALS, ROUNDED, SINKS, meaningful
from inferometer.calibration.tables import RANGES
from inferometer.report.formats import interval, number, percent
from inferometer.report.page import Figure
from inferometer.report.reading import read_of_chapter, read_table

MASSIVE_RATIO, MASSIVE_MAGNITUDE = 1000.0, 100.0  # over the median, and by itself: massive to Sun et al. (2024)


@dataclass(frozen=True)
class Model:
    """One model's part of the section."""

    name: str
    sinks_said: list[str]
    first_tokens_said: list[str]
    residuals_said: list[str]
    rounding_said: list[str]
    maps_said: list[str]
    reasons: list[str]
    texts: int
    finding: str | None
    figures: Mapping[str, Figure]
    map_figures: list[Figure]
    phases: pd.DataFrame
    schemes: pd.DataFrame


@dataclass(frozen=True)
class Attention:
    """All that the chapter's section shows."""

    models: list[Model]
    inputs: list[str]


def _bounds(row: Any, quantity: str = "share") -> str:
    low, high = (100 * row[f"{quantity}_{end}"] for end in ("low", "high"))
    return f"{percent(row[quantity])} {interval(low, high)}"


def _layers(first: int, last: int) -> str:
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def _lengths(sinks: pd.DataFrame) -> dict[str, int]:
    """Tokens of each length, from the shortest."""
    ordered = sinks[sinks["first_token"] == OWN].sort_values("tokens", kind="stable")
    return dict(zip(ordered["length"], ordered["tokens"], strict=True))


def _levels(stretches: pd.DataFrame) -> str:
    """The stretches of one phase, each with its level and the interval of where it begins."""
    parts = []
    row: Any
    for row in stretches.itertuples():
        begins = f", beginning in [{row.first_layer_low}, {row.first_layer_high}]" if row.stretch else ""
        parts.append(f"{percent(row.share, 0)} in {_layers(row.first_layer, row.last_layer)}{begins}")
    return "; ".join(parts)


def said_of_phases(sinks: pd.DataFrame, phases: pd.DataFrame) -> list[str]:
    """Where the sink emerges, holds and declines. Takes a model's rows of SINKS and PHASES."""
    said, uniform = [], meaningful(sinks).groupby("length")["uniform"].mean()
    for length, tokens in _lengths(sinks).items():
        own = phases[(phases["length"] == length) & (phases["input"] == ALL_TEXTS)].sort_values("stretch")
        parts = [f"{str(phase).capitalize()}: {_levels(rows)}" for phase, rows in own.groupby("phase", sort=False)]
        said.append(
            f"Meaningful texts of {tokens} tokens, share on the first two. {'. '.join(parts)}. Equal "
            f"looks at all tokens would give {percent(uniform[length])}. Least squares with BIC choose as many "
            f"stretches, {len(own)}, in {percent(own['agreeing'].iloc[0], 0)} of the resamples of the texts."
        )
    return said


def said_against_study(sinks: pd.DataFrame, reported: Mapping[str, Any]) -> list[str]:
    """The study's figures beside ours. Takes a model's rows of SINKS."""
    own, lengths = meaningful(sinks), list(_lengths(sinks))
    by_layer = own.groupby(["length", "layer"])["share"].mean()
    shortest, longest = by_layer[lengths[0]], by_layer[lengths[-1]]
    low, high = reported["plateau"]
    first, last = reported["plateau_layers"]
    inside = int(longest.between(low, high).sum())
    top = longest.idxmax()
    return [
        f"{reported['study']} reports for {reported['model']} a plateau of {percent(low, 0)} to {percent(high, 0)} in "
        f"layers {first} to {last}, for every input. Here {inside} of {len(longest)} layers lie "
        f"in that range in the longest texts; the largest share is {percent(longest[top])}, in layer {top}.",
        f"Its layer 0 has {percent(reported['first_layer_long'], 0)} in long meaningful text and more than "
        f"{percent(reported['first_layer_short'], 0)} in short; ours has {percent(longest.iloc[0])} and "
        f"{percent(shortest.iloc[0])}. Its last layer drops to {percent(reported['last_layer'][0], 0)} to "
        f"{percent(reported['last_layer'][1], 0)}; ours has {percent(longest.iloc[-1])}. Tokens that see no more than "
        "two are left out here: of what they look at all lies on the first two, which in short texts lifts every mean.",
    ]


def said_of_inputs(sinks: pd.DataFrame) -> list[str]:
    """Dummies beside texts that mean something, in the longest texts, and how much the very first token holds."""
    length = list(_lengths(sinks))[-1]
    own = sinks[(sinks["first_token"] == OWN) & (sinks["length"] == length)]
    means = own.groupby("input")[["share", "first_1"]].mean()
    listed = ", ".join(f"{name} {percent(share)}" for name, share in means["share"].items())
    meaningful = means[~means.index.isin(DUMMIES)]
    return [
        f"Mean over all layers in the longest texts: {listed}; equal looks would give "
        f"{percent(own['uniform'].mean())}. Of the share on the first two tokens, "
        f"{percent(meaningful['first_1'].sum() / meaningful['share'].sum(), 0)} lies on the very first in texts that "
        "mean something."
    ]


def said_of_first_tokens(sinks: pd.DataFrame, words: Mapping[str, str]) -> list[str]:
    """What becomes of the sink when a text begins otherwise. Takes a model's rows of SINKS."""
    begun = sinks[sinks["first_token"] != OWN]
    if begun.empty:
        return []
    kind = begun.iloc[0]
    own = sinks[(sinks["input"] == kind["input"]) & (sinks["length"] == kind["length"])]
    means = own.groupby("first_token")[["share", "first_1"]].mean()
    names = {OWN: "its own first token", BOS: "BOS before it"} | {
        name: f"“{word}” in its place" for name, word in words.items()
    }
    parts = [
        f"{names[name]}: {percent(row['share'])} on the first two tokens, {percent(row['first_1'])} on the first alone"
        for name, row in means.loc[[name for name in names if name in means.index]].iterrows()
    ]
    gap = float(means["share"].max() - means["share"].min())
    by_position = gap < means["share"].min() / 2
    return [
        f"The same texts ({kind['input']}, {kind.tokens} tokens), mean over layers, with {'; '.join(parts)}. What "
        f"stands first moves the share by {number(100 * gap)} percentage points at most: the sink belongs to the "
        f"{'position more than to the token' if by_position else 'token as much as to the position'}."
    ]


def _widest(ranges: pd.DataFrame, rises: int, falls: int) -> str:
    """Which linear layers read the widest inputs, beside the layers in which the first token's value rises and falls.

    Takes a model's rows of RANGES, which there are none of where the study does not calibrate.
    """
    turns = f"The value rises most in layer {rises} and falls most in layer {falls}"
    if ranges.empty:
        return f"{turns}."
    reach = ranges.assign(reach=ranges[["activation_min", "activation_max"]].abs().max(axis=1))
    reach = reach[reach["first_token"] & reach["decoder_layer"].notna()].nlargest(2, "reach")
    listed = " and ".join(
        f"{layer} ({number(size)})" for layer, size in zip(reach["layer"], reach["reach"], strict=True)
    )
    same = sorted(reach["decoder_layer"].astype(int)) == sorted([rises, falls])
    link = "These are the layers that write it and take it away" if same else "Other layers than these two have them"
    return f"{turns}; the widest inputs that calibration finds are those of {listed}. {link}."


def said_of_residuals(residuals: pd.DataFrame, sinks: pd.DataFrame, ranges: pd.DataFrame) -> list[str]:
    """Massive activations at the first token, and the sinks that stand on them. Takes RESIDUALS, SINKS and RANGES."""
    largest = residuals[(residuals["first_token"] == OWN) & (residuals["rank"] == 0)]
    largest = largest.assign(magnitude=largest["value"].abs())
    own = largest[~largest["input"].isin(DUMMIES)]
    own = own.assign(ratio=own["magnitude"] / own["median_magnitude"])
    medians: Any = own.groupby("layer")[["magnitude", "ratio", "later_magnitude"]].median()
    massive = medians[(medians["ratio"] >= MASSIVE_RATIO) & (medians["magnitude"] >= MASSIVE_MAGNITUDE)]
    top = medians["magnitude"].idxmax()
    channels = own[own["layer"] == top]["channel"].value_counts(normalize=True)
    verdict = "no layer has massive activations"
    if len(massive):
        where = _layers(int(massive.index.min()), int(massive.index.max()))
        verdict = f"activations are massive behind {len(massive)} of {len(medians)} layers, all within {where}"
    steps = medians["magnitude"].diff().iloc[1:]
    rises, falls = int(steps.idxmax()), int(steps.idxmin())
    length = list(_lengths(sinks))[-1]
    longest = meaningful(sinks[sinks["length"] == length])
    shares: Any = longest.groupby("layer")["share"].mean()
    repeated: Any = largest[(largest["input"] == REPEATED) & (largest["layer"] == top)].median(numeric_only=True)
    alike = repeated["later_magnitude"] > repeated["magnitude"] / 2
    marked = ": what all tokens have marks none of them as the first" if alike else ", which marks it"
    return [
        f"Behind layer {top} the largest value at the first token is {number(medians['magnitude'][top])}, "
        f"{number(medians['ratio'][top])} times the median of all (medians over texts), in channel "
        f"{channels.index[0]} in {percent(channels.iloc[0], 0)} of the texts; at later tokens this channel reaches "
        f"{number(medians['later_magnitude'][top])}. By the measure of Sun et al. (above 100, and 1,000 times the "
        f"median) {verdict}.",
        f"{_widest(ranges, rises, falls)} In the longest texts the first two tokens get "
        f"{percent(shares[shares.index <= rises].mean())} of the attention up to layer {rises}, and "
        f"{percent(shares[shares.index > rises].mean())} behind it.",
        f"Where one token is repeated, later tokens reach {number(repeated['later_magnitude'])} in that channel, the "
        f"first {number(repeated['magnitude'])}{marked}.",
    ]


def said_of_rounding(schemes: pd.DataFrame, context_tokens: int) -> list[str]:
    """How sinks and entropies move under rounding. Takes a model's rows of ATTENTION_SCHEMES."""
    whole = schemes[schemes["layer"].isna()]
    said = []
    for _, row in whole.iterrows():
        name = arm(row["scheme"], row["cache"])
        if row["share_change_low"] == row["share_change_high"] == 0:
            said.append(
                f"{name}: {percent(row['share'])} of the attention of tokens from {context_tokens} on lies on the "
                f"first two, at an entropy of {number(row['entropy'])} nats, mean over layers and heads."
            )
            continue
        share = [100 * row[f"share_change{end}"] for end in ("", "_low", "_high")]
        said.append(
            f"{name}: the share changes by {number(share[0])} {interval(*share[1:])} percentage points, the entropy by "
            f"{number(row['entropy_change'])} {interval(row['entropy_change_low'], row['entropy_change_high'])} nats; "
            f"a single head's entropy moves by {number(row['entropy_moved'])} nats on average."
        )
    return said


def said_of_maps(maps: pd.DataFrame, heads: pd.DataFrame) -> list[str]:
    """Which heads look most at the first two tokens, and which least far back. Takes MAPS and HEADS."""
    if maps.empty:
        return []
    rows = maps.drop_duplicates("map").set_index("map")
    own: Any = meaningful(heads).groupby(["layer", "head"])[["first_2", "distance_tokens"]].mean()
    sink, local = ((int(rows["layer"][name]), int(rows["head"][name])) for name in ("sink", "local"))
    return [
        f"Over all texts that mean something, head {sink[1]} of layer {sink[0]} looks most at the first two tokens "
        f"({percent(own.loc[sink, 'first_2'])} of its attention), head {local[1]} of layer {local[0]} least far back "
        f"({number(own.loc[local, 'distance_tokens'])} tokens on average)."
    ]


def _finding(sinks: pd.DataFrame, phases: pd.DataFrame) -> str:
    """The chapter in a clause."""
    length, tokens = list(_lengths(sinks).items())[-1]
    own = phases[(phases["input"] == ALL_TEXTS) & (phases["length"] == length)]
    plateau = own[own["phase"] == "plateau"].iloc[0]
    return (
        f"the first two of {tokens} tokens get {percent(plateau.share, 0)} of its attention in "
        f"{_layers(plateau.first_layer, plateau.last_layer)}, the plateau of its attention sink, and "
        f"{percent(own['share'].iloc[0], 0)} in {_layers(own['first_layer'].iloc[0], own['last_layer'].iloc[0])}"
    )


def _figures(folder: Path, name: str) -> dict[str, Figure]:
    return {
        "sinks": Figure(
            folder / "sinks.svg",
            "Share of attention on the first two tokens, mean over heads, with 95 % intervals over texts. The ground "
            "shows phases of all texts that mean something, bars at the top where each phase begins (95 %); dashed: "
            "what equal looks at all that is seen would give.",
            f"Line charts of the share of {name}'s attention on the first two tokens by decoder layer and input.",
        ),
        "heads": Figure(
            folder / "heads.svg",
            "The same share of every single head, mean over the texts that mean something.",
            f"Heat maps of the share of {name}'s attention on the first two tokens by decoder layer and head.",
        ),
        "first_tokens": Figure(
            folder / "first_tokens.svg",
            "The same texts with other first tokens, with 95 % intervals over texts.",
            f"Line chart of the share of {name}'s attention on the first two tokens by what texts begin with.",
        ),
        "residuals": Figure(
            folder / "residuals.svg",
            "Above: the largest magnitude of the residual stream at the first token behind each layer, median and 90 % "
            "of the texts that mean something, beside the same channel at later tokens and the median of all. Below: "
            "the share of attention on the first two tokens, mean over the same texts.",
            f"Line charts of {name}'s largest activations at the first token and of its attention sink by layer.",
        ),
        "schemes": Figure(
            folder / "schemes.svg",
            "Share on the first two tokens under schemes and KV caches (left), its change against float (middle) and "
            "that of the entropy (right), paired text by text with 95 % intervals.",
            f"Line charts of {name}'s attention sink and entropy under rounding by decoder layer.",
        ),
    }


def _map_figure(folder: Path, name: str, text: str) -> Figure:
    return Figure(
        folder / f"maps-{text}.svg",
        f"Attention maps of the first {text} text of each length: each row of a map is shared out over what it looks "
        "at. Layers are means over heads; colours are logarithmic, blank above the diagonal. Where a cell holds "
        "several tokens, it shows the share of its rows' attention that goes to all of its columns.",
        f"Attention maps of {name} on {text} texts of each length, for three layers and two heads.",
    )


def _model(
    name: str, config: Mapping[str, Any], results: Path, tables: Mapping[str, pd.DataFrame], reported: Mapping[str, Any]
) -> Model:
    folder, settings = results / name / "attention", config["attention"]
    heads, maps = read_table(HEADS, folder / "heads.parquet"), read_table(MAPS, folder / "maps.parquet")
    rounded = read_table(ROUNDED, folder / "rounded.parquet")
    sinks, phases, schemes, ranges = (
        table[table["model"] == name].reset_index(drop=True)
        for table in (tables[key] for key in ("sinks", "phases", "schemes", "ranges"))
    )
    schemes = schemes.assign(
        float=(schemes["cache"] == FLOAT) & (schemes["scheme"] == config["evaluation"]["reference"])
    )
    schemes = schemes.sort_values("float", ascending=False, kind="stable", ignore_index=True)
    said = not sinks.empty
    missing = pd.concat([heads, rounded])[["layer", "reason"]].dropna(subset="reason").drop_duplicates()
    residuals = read_table(RESIDUALS, folder / "residuals.parquet")
    seen = {
        "sinks": [*said_of_phases(sinks, phases), *said_of_inputs(sinks), *said_against_study(sinks, reported)]
        if said
        else [],
        "first_tokens": said_of_first_tokens(sinks, settings["first_token"]["words"]),
        "residuals": said_of_residuals(residuals, sinks, ranges),
        "schemes": said_of_rounding(schemes, settings["rounding"]["context_tokens"]),
    }
    return Model(
        name=name,
        sinks_said=seen["sinks"],
        first_tokens_said=seen["first_tokens"],
        residuals_said=seen["residuals"],
        rounding_said=seen["schemes"],
        maps_said=said_of_maps(maps, heads),
        reasons=[
            f"{reason} ({len(rows)} layers)" if rows["layer"].notna().all() else str(reason)
            for reason, rows in missing.groupby("reason")
        ],
        texts=int(meaningful(sinks).sort_values("tokens")["texts"].iloc[-1]) if said else 0,
        finding=_finding(sinks, phases) if said else None,
        figures={key: figure.saying(seen.get(key, [])) for key, figure in _figures(folder, name).items()},
        map_figures=[_map_figure(folder, name, text) for text in _inputs(config)],
        phases=phases,
        schemes=schemes[schemes["layer"].isna()],
    )


def _inputs(config: Mapping[str, Any]) -> list[str]:
    inputs = config["attention"]["inputs"]
    return [*inputs["corpora"], *inputs["question_sets"], *DUMMIES]


def attention(config: Mapping[str, Any], results: Path, reported: Mapping[str, Any]) -> Attention:
    """What the chapter's section shows, from the folder of results and the figures that the study printed."""
    summary = results / "summary"
    tables = {
        "sinks": read_table(SINKS, summary / "sinks.parquet"),
        "phases": read_table(PHASES, summary / "phases.parquet"),
        "schemes": read_table(ATTENTION_SCHEMES, summary / "attention_schemes.parquet"),
        "ranges": read_of_chapter(config, "evaluation", RANGES, summary / "ranges.parquet"),
    }
    measured = [name for name in config["study"]["models"] if config["models"][name]["source"] != "architecture"]
    return Attention(
        models=[_model(name, config, results, tables, reported["attention"]) for name in measured],
        inputs=_inputs(config),
    )
