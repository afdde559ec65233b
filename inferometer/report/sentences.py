"""What the tables say, in words. Every sentence is derived from rows; none is written in advance."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from inferometer.evaluation.schemes_summary import pareto
from inferometer.report.describe import family
from inferometer.report.formats import interval, number, percent, ratio, ratio_interval

COLLAPSE_RATIO = 10.0
ALIKE = 2.0  # speed-ups on another machine may differ by this factor and still tell the same
HALF = 0.5  # the strength that the literature uses
ON_A_GRID_DB = 3.0  # weights that round so much better as they are than rotated were on such a grid before
NOTHING_DB = 0.05


def effect(row: Any) -> str:
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


def accuracy(schemes: pd.DataFrame, reference: str, entries: Mapping[str, Any]) -> list[str]:
    """For each model the float perplexity, the best and worst of each family, engines, and the front of bytes.

    `schemes` is the SCHEMES table in the study's order, `entries` are the configuration's schemes.
    """
    said = []
    for model, every in schemes.groupby("model", sort=False):
        rows = every[every["ratio"].notna()]
        base = rows[rows["scheme"] == reference].iloc[0]
        said.append(
            f"{model} has a perplexity of {number(base.perplexity)} "
            f"{interval(base.perplexity_low, base.perplexity_high)} in float ({base['dtype']})."
        )
        rounded = rows[rows["scheme"] != reference]
        for name, members in rounded.groupby(rounded["scheme"].map(lambda scheme: family(entries[scheme])), sort=False):
            said.append(_family(str(name), members.sort_values("ratio")))
        said += _engines(rows, entries)
        front = ", ".join(pareto(rows))
        said.append(f"No other scheme has both fewer bytes and a lower perplexity than these: {front}.")
        said += [
            f"{row.scheme} could not be run: {row.skipped}" for row in every[every["skipped"].notna()].itertuples()
        ]
    return said


def _family(name: str, members: pd.DataFrame) -> str:
    """The best and the worst scheme of a family, whose rows are in order of their ratio."""
    best, worst = (next(rows.itertuples()) for rows in (members.head(1), members.tail(1)))
    sentence = f"{name}: {best.scheme} {effect(best)}"
    if len(members) == 1:
        return f"{sentence}."
    return f"{sentence}, the best of {len(members)}; the worst, {worst.scheme}, {effect(worst)}."


def _engines(rows: pd.DataFrame, entries: Mapping[str, Any]) -> list[str]:
    """How schemes that compute on real integers compare with the same schemes simulated."""
    said = []
    ratios = rows.set_index("scheme")["ratio"]
    for scheme in rows[rows["engine"] == "integer"]["scheme"]:
        same = {key: value for key, value in entries[scheme].items() if key != "engine"}
        for other in ratios.index:
            if entries[other] == same:
                off = abs(ratios[scheme] / ratios[other] - 1)
                close = f"within {percent(off, 4)} of" if off else "to the last digit that of"
                said.append(f"{scheme} multiplies integers; its perplexity is {close} {other}, simulated.")
    return said


def remedies(gains: pd.DataFrame, schemes: pd.DataFrame, model: str, names: Collection[str]) -> list[str]:
    """What each of these schemes gains over the same grids without its remedy, or does where there is no such base.

    Takes a GAINS and a SCHEMES table.
    """
    own = gains[(gains["model"] == model) & gains["scheme"].isin(list(names))]
    rows = schemes[schemes["model"] == model]
    alone = rows[rows["scheme"].isin(list(names)) & ~rows["scheme"].isin(own["scheme"]) & rows["ratio"].notna()]
    return [
        *(_gain(row, rows.set_index("scheme")) for row in own.itertuples()),
        *(f"{row.scheme}, beside which nothing differs by this alone, {effect(row)}." for row in alone.itertuples()),
    ]


def _gain(row: Any, perplexity: pd.DataFrame) -> str:
    what = f"Going from {row.base} to {row.scheme}"
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


def stored(table: pd.DataFrame) -> list[str]:
    """For each model of a STORED table, how far the measured bytes are from the predicted ones."""
    said = []
    for model, rows in table.groupby("model", sort=False):
        known = rows.dropna(subset="difference_bytes")
        if known.empty:
            said.append(f"{model}: no scheme could be both predicted and measured.")
            continue
        off = known["difference_bytes"].astype(int)
        share = percent(float((off.abs() / known["measured_bytes"].astype(int)).max()), 4)
        least, most = int(off.min()), int(off.max())
        bytes_off = f"{least:,} bytes" if least == most else f"{least:,} to {most:,} bytes"
        bytes_off = bytes_off.replace("-", "−")
        said.append(
            f"{model}: the bytes of {len(known)} of {len(rows)} schemes are both predicted and measured. Measured less "
            f"predicted is {bytes_off}, at most {share} of the model."
        )
    return said


def roofline(intensity: pd.DataFrame, ridges: pd.DataFrame, model: str) -> str:
    """On which side of the ridge points a model's layers lie in prefill and in decode."""
    layers = intensity[(intensity["model"] == model) & (intensity["kind"] == "layer")]
    halves = ridges[ridges["dtype"].isin(["bfloat16", "float16"])]["ridge"]
    decode, prefill = (layers[layers["phase"] == phase] for phase in ("decode", "prefill"))
    floats = decode[decode["kv_bits"] == decode["kv_bits"].max()]
    alone, busiest = floats.nsmallest(1, "intensity").iloc[0], floats.nlargest(1, "intensity").iloc[0]
    least = prefill.nsmallest(1, "intensity").iloc[0]
    bound = "more than even" if busiest.intensity >= halves.min() else "less than"
    return (
        f"A layer of {model} does {number(alone.intensity)} operations per byte when it decodes for {alone.batch} "
        f"request of {alone.context_tokens:,} tokens, and {number(busiest.intensity)} at most (batch {busiest.batch}, "
        f"{busiest.context_tokens:,} tokens), {bound} the lowest ridge point of the GPUs in 16 bits, "
        f"{number(halves.min())}; the highest is {number(halves.max())}. Prefill does {number(least.intensity)} at "
        f"least (batch {least.batch}, {least.context_tokens:,} tokens)."
    )


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
    """How many places were folded, why the others were not, and how well the proof held."""
    folded = int(sites["folded"].sum())
    refused = sites[~sites["folded"]]
    linear = int(sites["rows"].notna().sum())
    kinds = f"{folded - linear} norms" + (f" and {linear} linear layers" if linear else "")
    sentence = (
        f"{kinds} of {len(sites)} places were folded; the float logits before and after agree to a relative error of "
        f"{number(sites['logit_error'].iloc[0], 2)} (allowed: 10⁻⁴)."
    )
    for reason in dict.fromkeys(refused["reason"]):
        names = refused["site"][refused["reason"] == reason].tolist()
        shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        sentence += f" Refused: {shown}, since {reason}."
    return sentence


def search(alphas: pd.DataFrame) -> str:
    """Which strengths a search chose, and what they gained on calibration text."""
    chosen = alphas[alphas["chosen"]]
    half = alphas[alphas["alpha"] == HALF].set_index("site")["error"].reindex(chosen["site"]).mean()
    strengths = sorted(chosen["alpha"].unique())
    which = f"{strengths[0]:g} to {strengths[-1]:g}" if len(strengths) > 1 else f"{strengths[0]:g}"
    what = "strengths" if len(strengths) > 1 else "a strength"
    return (
        f"The search chose {what} of {which}: the mean output error on calibration text is "
        f"{number(chosen['error'].mean(), 2)} of the outputs' power, against {number(half, 2)} at α = {HALF:g}."
    )


def rotation(paths: pd.DataFrame) -> str:
    """What a rotation touches, and how well the proof held."""
    counts = paths["role"].value_counts()
    return (
        f"{counts.get('reader', 0)} layers read the rotated stream and {counts.get('writer', 0)} write to it, with "
        f"{counts.get('norm', 0)} norms absorbed; {counts.get('value', 0)} value layers took up a rotation of heads, "
        f"and the inputs of {counts.get('online', 0)} layers are rotated as the model runs. The float logits before "
        f"and after agree to a relative error of {number(paths['logit_error'].iloc[0], 2)} (allowed: 10⁻⁴)."
    )


def basis(table: pd.DataFrame) -> str:
    """What rounding weights to 4 bits gains or loses when a rotation leaves the model's own basis; a BASIS table."""
    known = table.dropna()
    if known.empty:
        return "No weight was rounded to 4 bits in groups of 32: no layer's inputs part into such groups."
    own, rotated = (float(known[name].median()) for name in ("weight_sqnr_db", "rotated_weight_sqnr_db"))
    gain = 0.0 if own == rotated else rotated - own  # both may be infinite
    sentence = (
        f"Rounded to 4 bits in groups of 32, the weights have a median SQNR of {number(own)} dB as they are and of "
        f"{number(rotated)} dB rotated"
    )
    if gain < -ON_A_GRID_DB:
        return (
            f"{sentence}: they were on such a grid before, or nearly. That flatters 4-bit schemes that do not rotate, "
            "and rotation gives it up."
        )
    if gain <= -NOTHING_DB:
        return f"{sentence}: leaving the model's own basis costs {number(-gain, 2)} dB by this measure."
    effect = "costs nothing" if gain < NOTHING_DB else f"gains {number(gain, 2)} dB"
    return (
        f"{sentence}: leaving the model's own basis {effect} by this measure, so whatever the weights were rounded to "
        "before does not flatter them on this grid."
    )
