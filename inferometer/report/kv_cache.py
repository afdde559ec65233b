"""What the page shows of KV caches on few bits: tables and figures, and what these say in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.kv_cache.summary import is_float, is_static
from inferometer.kv_cache.tables import CACHE_LENGTHS, CACHE_PAIRS, CACHE_TRACE, KV_CACHE
from inferometer.report.formats import interval, number, percent
from inferometer.report.page import Figure
from inferometer.report.reading import read_table
from inferometer.report.sentences import ALIKE
from inferometer.units import MIB

FOUR = 4  # bits of the studies' caches
UNFAIR_BITS = 0.05  # by which stored bits may differ between policies that are held against each other
FLOAT32_BYTES = 4
UNDECIDED, BETTER, WORSE = "can't be told apart from", "is better than", "is worse than"


@dataclass(frozen=True)
class Compared:
    """What the study printed of an arm, and our policy that comes closest; none where nothing does."""

    arm: str
    reported: Mapping[str, float]
    ours: Any | None


@dataclass(frozen=True)
class Model:
    """One model's part of the section."""

    name: str
    windows: int
    questions: int
    gains: list[str]
    verdict: str | None
    bytes_said: list[str]
    cost_said: list[str]
    choice_said: list[str]
    speed_said: list[str]
    described: Mapping[str, str]
    rows: list[Any]
    pairs: list[Any]
    lengths: list[Any]
    study_said: list[str]
    compared: list[Compared]
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class KVCache:
    """All that the chapter's section shows."""

    models: list[Model]
    studies_said: list[str]
    contaminated: str | None


def describe(row: Any) -> str:
    """What a policy is, by its row of KV_CACHE."""
    if isinstance(row.library, str):
        return f"{row.bits:g} bits by {row.library}"
    if pd.isna(row.bits):
        return "the model's dtype"
    grids = f"keys {row.keys.replace('_', ' ')}, groups of {row.group_size:g}"
    if isinstance(row.feature, str):
        return f"by {row.feature}, {row.bits:g} bits on average; {grids}"
    return f"{row.bits:g} bits for every token; {grids}"


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def _ends(row: Any, name: str) -> tuple[float, float, float]:
    """A mean and the ends of its interval."""
    return getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high")


def _points(row: Any) -> str:
    change, low, high = (number(100 * end, 2) for end in _ends(row, "accuracy_change"))
    return f"{change} points [{low}, {high}]"


def _verdict(low: float, high: float) -> str:
    """What an interval of a change allows to say where less is better."""
    return BETTER if high < 0 else WORSE if low > 0 else UNDECIDED


def _perplexity(row: Any) -> str:
    """What a policy does to perplexity, in words that its interval allows."""
    change, low, high = (percent(math.expm1(end), 2) for end in _ends(row, "nll_change"))
    verdict = _verdict(row.nll_change_low, row.nll_change_high)
    if verdict == UNDECIDED:
        return f"makes no difference to perplexity that this text could tell from chance ([{low} to {high}])"
    raises = "raises" if verdict == WORSE else "changes"
    return f"{raises} the perplexity by {change} [{low} to {high}]"


def _cost(row: Any) -> str:
    """What a policy does to predictions and answers, in words that its intervals allow."""
    said = (
        f"{_perplexity(row)}, with a KL divergence of {number(row.kl_divergence, 2)} "
        f"{interval(row.kl_divergence_low, row.kl_divergence_high, 2)} and {percent(row.same_top_token)} of the "
        "likeliest tokens kept"
    )
    return f"{said}; right answers change by {_points(row)}" if pd.notna(row.accuracy_change) else said


def said_of_bytes(table: pd.DataFrame, lengths: pd.DataFrame) -> list[str]:
    """What caches take after the longest prompt, against float and against theory.

    Takes one model's rows of KV_CACHE under one scheme, and of CACHE_LENGTHS.
    """
    weighed = table[table["cache_bytes"].notna()]
    if not is_float(weighed).any():
        return []
    base = weighed[is_float(weighed)].iloc[0]
    each = [
        f"{row.policy} {number(row.cache_bytes / MIB)} MiB ({percent(row.cache_bytes / base['cache_bytes'])})"
        for row in _rows(weighed[~is_float(weighed)])
    ]
    said = [
        f"After {base['prompt_tokens']:,} tokens the cache in {base['dtype']} holds "
        f"{number(base['cache_bytes'] / MIB)} MiB. Of the others, {', '.join(each)}."
    ]
    known = lengths[lengths["predicted_bytes"].notna() & lengths["cache_bytes"].notna()]
    off = known["cache_bytes"].astype("float64") / known["predicted_bytes"]
    if len(known):
        said.append(
            f"Weighed exactly, over all lengths, that is {number(off.min(), 4)} to {number(off.max(), 4)} times what "
            "codes, grids and waiting tokens take by theory. What differs is room for further tokens, and the budget "
            "where bits are chosen."
        )
    return said


def said_of_cost(table: pd.DataFrame) -> list[str]:
    """What each number of bits costs where all tokens get the same, and how a library's cache stands beside that.

    Takes one model's rows of KV_CACHE under one scheme.
    """
    measured = table[table["kl_divergence"].notna()]
    statics = measured[is_static(measured)]
    said = [f"{row.policy} {_cost(row)}." for row in _rows(statics)]
    for row in _rows(measured[measured["library"].notna()]):
        said.append(f"{row.policy}, {describe(row)}, {_cost(row)}.")
        same = statics[statics["bits"] == row.bits]
        for other in _rows(same.head(1)):
            least, most = other.kl_divergence, row.kl_divergence
            relation = f"{number(most / least, 2)} times" if least > 0 else "against none at all for"
            said.append(
                f"{row.policy} stores {number(row.effective_bits, 3)} bits for each number where {other.policy} stores "
                f"{number(other.effective_bits, 3)}; its divergence is {relation} that of {other.policy}, and one more "
                f"token takes {number(row.decode_ms)} ms against {number(other.decode_ms)}."
            )
    return said


def _against(row: Any) -> str:
    """A row of CACHE_PAIRS in words."""
    verdict = _verdict(row.kl_change_low, row.kl_change_high)
    answers = f", right answers {_points(row)}" if pd.notna(row.accuracy_change) else ""
    bits = row.effective_bits_change
    more = "more" if bits > 0 else "less"
    unfair = f" It stores {number(abs(bits), 2)} bits {more} for each number." if abs(bits) > UNFAIR_BITS else ""
    return (
        f"{row.policy} {verdict} {row.against} by divergence: {number(row.kl_change, 2)} nats "
        f"{interval(row.kl_change_low, row.kl_change_high, 2)}, loss {number(row.nll_change, 2)} "
        f"{interval(row.nll_change_low, row.nll_change_high, 2)}{answers}.{unfair}"
    )


def _entropy_verdicts(table: pd.DataFrame, pairs: pd.DataFrame) -> list[tuple[str, str, bool]]:
    """How the policy that goes by entropy does by divergence: against what, and whether that chooses at random.

    Chance comes first, then the same bits for all tokens.
    """
    feature = table.drop_duplicates("policy").set_index("policy")["feature"]
    own = pairs[pairs["policy"].map(feature) == "entropy"]
    own = own.assign(at_random=own["against"].map(feature) == "random").sort_values("at_random", ascending=False)
    return [(row.against, _verdict(row.kl_change_low, row.kl_change_high), bool(row.at_random)) for row in _rows(own)]


def answer(table: pd.DataFrame, pairs: pd.DataFrame) -> str | None:
    """Whether uncertain tokens should get more bits, as far as the pairs allow to say. None without such pairs.

    Takes one model's rows of KV_CACHE and CACHE_PAIRS under one scheme.
    """
    verdicts = _entropy_verdicts(table, pairs)
    if not verdicts:
        return None
    chance, fixed = ([verdict for _, verdict, at_random in verdicts if at_random is which] for which in (True, False))
    each = " and ".join(f"{verdict} {against}" for against, verdict, _ in verdicts)
    head, found = "Should uncertain tokens get more bits?", set(chance + fixed)
    if found == {BETTER}:
        said = "Yes, on this text"
    elif BETTER in chance:
        said = (
            "Entropy tells something of what matters, but mixing widths by it shows no gain over the same bits for all"
        )
    elif BETTER in fixed:
        said = "Mixing widths pays, but not because of entropy"
    elif WORSE in found:
        said = "No, not on this text"
    else:
        said = "This text shows no gain"
    return f"{head} {said}: at the same bits on average, choosing by entropy {each}, by KL divergence."


def said_of_traces(traces: Mapping[str, pd.DataFrame], table: pd.DataFrame) -> list[str]:
    """How bits and entropy went together along the written text. Takes CACHE_TRACE by policy, and KV_CACHE."""
    features = table.drop_duplicates("policy").set_index("policy")
    said = []
    for policy, trace in traces.items():
        if features["feature"].get(policy) != "entropy" or trace.empty:
            continue
        means = trace.groupby("bits")["entropy"].mean().dropna()
        each = [f"{bits} bits {number(mean, 2)} nats" for bits, mean in means.items() if bits]
        last = trace.sort_values("position").iloc[-1]
        said.append(
            f"Along the text below, {policy} gave {number(last['running_bits'], 3)} bits on average, of a budget of "
            f"{features['bits'][policy]:g}; mean entropy by the bits that tokens got: {', '.join(each)}."
        )
    return said


def said_of_speed(table: pd.DataFrame) -> list[str]:
    """What one more token takes after the longest prompt. Takes one model's rows of KV_CACHE under one scheme."""
    timed = table[table["decode_ms"].notna()]
    if not is_float(timed).any():
        return []
    base = timed[is_float(timed)].iloc[0]
    others = timed[~is_float(timed)].assign(times=lambda rows: rows["decode_ms"] / base["decode_ms"])
    each = [f"{row.policy} {number(row.decode_ms)} ms ({number(row.times, 2)} times)" for row in _rows(others)]
    faster = others[others["decode_ms_q75"] < base["decode_ms_q25"]]["policy"].tolist()
    verdict = (
        "no cache on few bits is clearly faster than float, since it is unpacked anew for every token"
        if not faster
        else f"faster than float, beyond the quartiles: {', '.join(faster)}"
    )
    return [
        f"One more token after {base['prompt_tokens']:,} takes {number(base['decode_ms'])} ms "
        f"{interval(base['decode_ms_q25'], base['decode_ms_q75'])} (median with quartiles) with a float cache; "
        f"{', '.join(each)}. On {base['device'].upper()}, {verdict}."
    ]


def said_of_combined(table: pd.DataFrame, scheme: str, reference: str) -> list[str]:
    """What caches cost beside rounded weights, against what they cost beside float ones. Takes a model's KV_CACHE."""
    own, first = (table[(table["scheme"] == name) & table["nll"].notna()] for name in (scheme, reference))
    both = own.merge(first, on="policy", suffixes=("", "_first"))
    if not is_float(both).any():
        return []
    base, others = both[is_float(both)].iloc[0], both[~is_float(both)]
    change = base["nll"] - base["nll_first"]
    each = [
        f"{row.policy} {number(row.nll_change, 2)} nats {interval(row.nll_change_low, row.nll_change_high, 2)} "
        f"({number(row.nll_change_first, 2)} under {reference})"
        for row in _rows(others)
    ]
    first_costs = others["nll_change_first"]
    outside = (first_costs < others["nll_change_low"]) | (first_costs > others["nll_change_high"])
    more = ", ".join(others["policy"][outside])
    verdict = (
        f"outside of its interval lies what it was under {reference} for {more}"
        if more
        else f"what it was under {reference} lies within every interval: both roundings add up"
    )
    return [
        f"With {scheme} for the weights a float cache has a loss {number(change, 2)} nats above that with {reference}. "
        f"Caches on few bits add {', '.join(each)}; {verdict}."
    ]


def said_of_refused(table: pd.DataFrame) -> list[str]:
    """Which policies could not run, and why. Takes a model's KV_CACHE."""
    refused = table[table["reason"].notna()]
    return [
        f"Under {scheme} not everything could be measured of {', '.join(own['policy'])}: {reason}."
        for (scheme, reason), own in refused.groupby(["scheme", "reason"], sort=False)
    ]


def gains(table: pd.DataFrame) -> list[str]:
    """What 4 bits save and cost, as clauses for the top of the page. Takes one model's KV_CACHE under one scheme."""
    said = []
    weighed = table[table["cache_bytes"].notna() & table["kl_divergence"].notna()]
    if is_float(weighed).any():
        base = weighed[is_float(weighed)].iloc[0]
        statics = weighed[is_static(weighed) & (weighed["bits"] == FOUR)]
        said += [
            f"its KV cache on {FOUR} bits ({row.policy}) holds {percent(row.cache_bytes / base['cache_bytes'])} of the "
            f"bytes and {_perplexity(row)}"
            for row in _rows(statics.head(1))
        ]
    return said


def said_of_studies(reported: Mapping[str, Any]) -> list[str]:
    """What the course report printed of such caches, and what its own figures show."""
    library, policies = reported["library"], reported["policies"]
    (before, after), (short, _) = (library["kv_megabytes"][which] for which in ("long", "short"))
    slow, fast = reversed(library["seconds"]["long"])
    numbers = 2 * reported["layers"] * reported["kv_heads"] * reported["head_dim"]
    held = before * 1e6 / (FLOAT32_BYTES * numbers)
    peaks = library["peak_megabytes"]["long"]
    said = [
        f"{library['study']} gave {reported['model']} a 4-bit cache by optimum-quanto. After the longer prompt, of "
        f"about {library['prompt_tokens']['long']} tokens, time rose from {fast:.3f} to {slow:.3f} s "
        f"({percent(slow / fast - 1, 0)} more), the peak fell from {peaks[0]:.1f} to {peaks[1]:.1f} MB, and a "
        f"“KV delta” from {before:.1f} to {after:.1f} MB ({percent(1 - after / before)} less). It did not measure "
        "quality.",
        f"That delta was mostly not keys and values. By its shape ({numbers:,} numbers a token) the model would need "
        f"{number(held, 2)} tokens to fill {before:.1f} MB in float32. Codes of 4 bits take a quarter at most of "
        f"what they replace, but the delta kept {percent(after / before)}; and the shorter prompt had the larger one "
        f"({short:.1f} MB).",
    ]
    arms = policies["arms"]
    static, dynamic, both = arms.values()
    each = "; ".join(
        f"{name}: {percent(arm['accuracy'])}, {arm['ms']:.2f} ms a token, {arm['megabytes']:.1f} MB"
        for name, arm in arms.items()
    )
    said.append(f"{policies['study']} printed, for {policies['items']} questions of HellaSwag: {each}.")
    if static["megabytes"] == dynamic["megabytes"]:
        said.append(
            "Equal memory of its static and its dynamic policy shows that nothing was stored on fewer bits, which "
            "explains the equal accuracies, too: a policy was computed, but no cache obeyed it. Here all are packed."
        )
    if abs(both["accuracy"] * policies["items"] - round(both["accuracy"] * policies["items"])) > 1e-6:
        said.append(
            f"{percent(both['accuracy'])} is no share of {policies['items']} questions; the report calls that arm "
            "simulated."
        )
    return said


def said_of_library(table: pd.DataFrame, reported: Mapping[str, Any]) -> list[str]:
    """How much slower a library's cache is than a float one, here and in the study. Takes KV_CACHE of one scheme."""
    timed = table[table["decode_ms"].notna()]
    theirs = reported["library"]["seconds"]["long"][1] / reported["library"]["seconds"]["long"][0]
    if not is_float(timed).any():
        return []
    base, said = timed[is_float(timed)].iloc[0], []
    for row in _rows(timed[timed["library"].notna()]):
        ours = row.decode_ms / base["decode_ms"]
        alike = ours > 1 and max(ours / theirs, theirs / ours) <= ALIKE
        said.append(
            f"The report's text took {number(theirs)} times as long with optimum-quanto's cache. Here one more token "
            f"takes {number(ours)} times as long with {row.policy}, after {row.prompt_tokens:,} tokens: our evidence "
            f"{'bears that out' if alike else 'contradicts that'}. The cache itself takes "
            f"{percent(row.cache_bytes / base['cache_bytes'])} of the float cache's bytes."
        )
    return said


def _compared(table: pd.DataFrame, reference: str, reported: Mapping[str, Any]) -> list[Compared]:
    """The study's arms beside ours: 4 bits for all, bits by entropy, and that on rounded weights."""
    first, other = table["scheme"] == reference, table["scheme"] != reference
    chosen = table["feature"] == "entropy"
    ours = {
        "static": table[first & is_static(table) & (table["bits"] == FOUR)],
        "dynamic": table[first & chosen],
        "dynamic and weights": table[other & chosen],
    }
    return [
        Compared(arm, own, next(iter(_rows(ours[arm].head(1))), None) if arm in ours else None)
        for arm, own in reported["policies"]["arms"].items()
    ]


FIGURES = {  # captions, and what one is told who can't see them
    "accuracy": (
        "Left: KL divergence of predictions from those with a float cache, against the bits that are stored for each "
        "number, grids and waiting tokens counted in. Middle: change of right answers. Right: policies that choose "
        "bits against others with the same average; left of 0 the first is better. All with 95 % intervals, over "
        "windows and over questions. Lines join policies that give all tokens the same bits.",
        "Scatter charts of divergence and change of accuracy against stored bits, by cache policy, and a dot chart of "
        "policies against each other, for {}.",
    ),
    "bytes": (
        "Left: exact bytes of the cache (points) against the prompt, both axes logarithmic; lines are theory. Right: "
        "the same as a share of the float cache.",
        "Line charts of the bytes of {}'s KV cache against the prompt, by policy.",
    ),
    "bits": (
        "One prompt and what the model wrote after it, token by token: the bits that each policy gave, their mean so "
        "far and the budget. At the top, how unsure the model was of what comes.",
        "Strips of bits by token for each policy that chooses them, and the entropy of {}'s predictions.",
    ),
}


def _model(
    name: str, results: Path, tables: Mapping[str, pd.DataFrame], schemes: Sequence[str], reported: Mapping[str, Any]
) -> Model:
    folder = results / name / "kv_cache"
    own = {key: table[table["model"] == name] for key, table in tables.items()}
    present = set(own["table"]["scheme"])
    order = [scheme for scheme in schemes if scheme in present]
    policies = own["table"].sort_values("place")["policy"].drop_duplicates().tolist()

    def sorted_by(table: pd.DataFrame) -> pd.DataFrame:
        ranks = {"scheme": order, "policy": policies, "against": policies}
        keys = [key for key in (*ranks, "prompt_tokens") if key in table]
        return table.sort_values(
            keys, key=lambda column: column.map(ranks[column.name].index) if column.name in ranks else column,
            ignore_index=True,
        )  # fmt: skip

    table, pairs, lengths = (sorted_by(own[key]) for key in ("table", "pairs", "lengths"))
    reference = order[0]
    first, first_pairs, first_lengths = (part[part["scheme"] == reference] for part in (table, pairs, lengths))
    choosing = first[first["feature"].notna()]["policy"].tolist()
    traces = {policy: read_table(CACHE_TRACE, folder / policy / "trace.parquet") for policy in choosing}
    combined = [sentence for scheme in order[1:] for sentence in said_of_combined(table, scheme, reference)]
    verdict = answer(first, first_pairs)
    bytes_said, cost_said = said_of_bytes(first, first_lengths), said_of_cost(first)
    seen = {"bytes": bytes_said, "accuracy": cost_said, "bits": said_of_traces(traces, first)}
    return Model(
        name=name,
        windows=int(first["windows"].max()),
        questions=int(first["items"].max()),
        gains=gains(first),
        verdict=verdict,
        bytes_said=bytes_said,
        cost_said=[*cost_said, *combined, *said_of_refused(table)],
        choice_said=[
            *(_against(row) for row in _rows(first_pairs)),
            *seen["bits"],
        ],
        speed_said=said_of_speed(first),
        described={row.policy: describe(row) for row in _rows(table)},
        rows=_rows(table),
        pairs=_rows(pairs),
        lengths=_rows(lengths),
        study_said=said_of_library(first, reported),
        compared=_compared(table, reference, reported),
        figures={
            key: Figure(folder / f"{key}.svg", caption, alternative.format(name)).saying(seen[key])
            for key, (caption, alternative) in FIGURES.items()
            if key != "bits" or choosing
        },
    )


def _contaminated(lengths: pd.DataFrame) -> str | None:
    taken, every = (int(lengths[name].sum()) for name in ("contaminated", "samples"))
    if not taken:
        return None
    return f"Other work ran on the machine during {taken} of {every} samples: read ratios and not milliseconds."


def kv_cache(config: Mapping[str, Any], results: Path, reported: Mapping[str, Any]) -> KVCache:
    """What the chapter's section shows, from the folder of results and the figures that other studies printed."""
    named = {"table": KV_CACHE, "pairs": CACHE_PAIRS, "lengths": CACHE_LENGTHS}
    files = {"table": "kv_cache", "pairs": "kv_cache_pairs", "lengths": "kv_cache_lengths"}
    tables = {key: read_table(table, results / "summary" / f"{files[key]}.parquet") for key, table in named.items()}
    measured = set(tables["table"]["model"])
    reference = config["evaluation"]["reference"]
    schemes = [reference, *(name for name in config["schemes"] if name != reference)]
    return KVCache(
        models=[
            _model(name, results, tables, schemes, reported["kv_cache"])
            for name in config["study"]["models"]
            if name in measured
        ],
        studies_said=said_of_studies(reported["kv_cache"]),
        contaminated=_contaminated(tables["lengths"]),
    )
