"""What the tables say, in words. Every sentence is derived from rows; none is written in advance."""

from typing import Any

import pandas as pd

from inferometer.report.formats import interval, number, percent, ratio, ratio_interval

COLLAPSE_RATIO = 10.0


def _effect(row: Any) -> str:
    """What a scheme does to perplexity, in words that its interval allows."""
    bounds = ratio_interval(row.ratio_low, row.ratio_high)
    if row.ratio_low > COLLAPSE_RATIO:
        return f"multiplies the perplexity by {number(row.ratio)} {bounds}: the model has collapsed"
    if row.ratio_low > 1:
        low, high = (percent(bound - 1) for bound in (row.ratio_low, row.ratio_high))
        return f"raises the perplexity by {percent(row.ratio - 1)} [{low} to {high}]"
    if row.ratio_high < 1:
        return f"lowers the perplexity, to {ratio(row.ratio)} {bounds} of the float model's"
    return f"shows no difference from the float model that this sample could tell from chance ({bounds})"


def answers(perplexity: pd.DataFrame, gains: pd.DataFrame, reference: str) -> list[str]:
    """The study's answers: for each model the float perplexity, what every scheme does, and what smoothing adds."""
    said = []
    for model, rows in perplexity.groupby("model", sort=False):
        base = rows[rows["scheme"] == reference].iloc[0]
        said.append(
            f"{model} has a perplexity of {number(base.perplexity)} "
            f"{interval(base.perplexity_low, base.perplexity_high)} in float ({base['dtype']}), "
            f"on {base.tokens:,} tokens of {base.corpus} in windows of {base.window_tokens}."
        )
        said += [f"{row.scheme} {_effect(row)}." for row in rows.itertuples() if row.scheme != reference]
        said += [_gain(row, rows.set_index("scheme")) for row in gains[gains["model"] == model].itertuples()]
    return said


def _gain(row: Any, perplexity: pd.DataFrame) -> str:
    what = f"Smoothing {row.base} into {row.scheme}"
    if row.ratio_low <= 1 <= row.ratio_high:
        return f"{what} makes no difference that this sample could tell from chance."
    if row.ratio > 1:
        return f"{what} makes it worse, by {percent(row.ratio - 1)}."
    if pd.isna(row.gap_closed):
        return f"{what} lowers the perplexity by {percent(1 - row.ratio)}, from a base with no measurable gap to float."
    bounds = f"[{percent(row.gap_closed_low, 0)} to {percent(row.gap_closed_high, 0)}]"
    collapsed = perplexity.loc[row.scheme, "ratio_low"] > COLLAPSE_RATIO
    closing = f"{what} closes {percent(row.gap_closed, 0)} {bounds} of its gap to float"
    return f"{closing}, which does not rescue it." if collapsed else f"{closing}."


def ranges(table: pd.DataFrame, model: str, decoder_layer: int) -> str:
    """How far activations outreach weights in one decoder layer, with and without the first token."""
    rows = table[(table["model"] == model) & (table["decoder_layer"] == decoder_layer)]
    worst = {first: rows[rows["first_token"] == first].nlargest(1, "ratio").iloc[0] for first in (True, False)}
    widest, rest = worst[True], worst[False]
    return (
        f"In decoder layer {decoder_layer} inputs outreach weights furthest at {widest.layer}, whose largest input "
        f"(channel {widest.largest_channel}) is {number(widest.ratio, 2)} times its largest weight; without the first "
        f"token of each window at {rest.layer}, {number(rest.ratio, 2)} times."
    )


def massive(table: pd.DataFrame, model: str) -> str:
    """Where the largest input of all stands, and whether it belongs to the first token."""
    rows = table[table["model"] == model].assign(
        magnitude=lambda part: part[["activation_min", "activation_max"]].abs().max(axis=1)
    )
    largest = {first: rows[rows["first_token"] == first].nlargest(1, "magnitude").iloc[0] for first in (True, False)}
    size = {first: number(row.magnitude) for first, row in largest.items()}
    place = {first: f"{row.layer}, channel {row.largest_channel}" for first, row in largest.items()}
    return (
        f"The largest input anywhere is {size[True]}, at {place[True]}; without the first token of each window it is "
        f"{size[False]}, at {place[False]}."
    )


def smoothing(sites: pd.DataFrame) -> str:
    """How many norms were folded, why the others were not, and how well the proof held."""
    folded = int(sites["folded"].sum())
    refused = sites[~sites["folded"]]
    sentence = (
        f"{folded} of {len(sites)} norms were folded; the float logits before and after agree to a relative error of "
        f"{number(sites['logit_error'].iloc[0], 2)} (allowed: 10⁻⁴)."
    )
    for reason in dict.fromkeys(refused["reason"]):
        names = refused["site"][refused["reason"] == reason].tolist()
        shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        sentence += f" Refused: {shown}, since {reason}."
    return sentence
