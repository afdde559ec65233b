"""From raw scores, times and bytes to a row for each policy, and policies that choose bits against others.

Needs no torch. Everything is paired: with the float cache under the same weights, or with another policy, window by
window and question by question.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inferometer.errors import InferometerError
from inferometer.evaluation.choices_summary import IDENTITY, correct_items
from inferometer.intervals import bootstrap_mean
from inferometer.kv_cache.tables import CACHE_PAIRS
from inferometer.kv_cache.theory import GROUP_SIZE, KEYS
from inferometer.samples import best_samples, spread

ARM = ["scheme", "prompt_tokens"]
SCORES = ["nll", "kl_divergence", "same_top_token"]
PLACE = ["window", "position"]
QUESTION = [*IDENTITY, "context_tokens"]

Row = dict[str, Any]
Policies = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Measured:
    """The raw tables of a model under a policy; scores are empty, and the others hold reasons, where it could not run.

    CACHE_PERPLEXITY, CACHE_CHOICES, CACHE_LATENCY and CACHE_MEMORY.
    """

    perplexity: pd.DataFrame
    choices: pd.DataFrame
    latency: pd.DataFrame
    memory: pd.DataFrame


Cells = Mapping[tuple[str, str], Measured]  # by model and policy


@dataclass(frozen=True)
class _Scores:
    """What a policy scored under a scheme: by window, and by question 1 where its likeliest ending is right."""

    tokens: pd.DataFrame
    windows: pd.DataFrame
    endings: pd.DataFrame
    correct: NDArray[np.float64]
    effective_bits: float

    @staticmethod
    def of(measured: Measured, scheme: str) -> "_Scores":
        """The scores under one scheme; empty where nothing could be measured."""
        perplexity, choices, memory = (
            table[table["scheme"] == scheme] for table in (measured.perplexity, measured.choices, measured.memory)
        )
        tokens, endings = (
            table.sort_values(order, ignore_index=True)
            for table, order in ((perplexity, PLACE), (choices, ["question_set", "item", "ending"]))
        )
        means = tokens.astype(dict.fromkeys(SCORES, "float64")).groupby("window")[SCORES].mean()
        held = memory[memory["experiment"] == "perplexity"]["effective_bits"].astype("float64")
        return _Scores(tokens[PLACE], means, endings[QUESTION], correct_items(endings)["acc"], float(held.mean()))

    def check(self, other: "_Scores", names: str) -> None:
        """Raise InferometerError where two policies were not scored on the same texts, so that they can't be paired."""
        for what, own, others in (("windows", self.tokens, other.tokens), ("questions", self.endings, other.endings)):
            if not own.equals(others):
                raise InferometerError(
                    f"{names} were not scored on the same {what}, so one of them has tables in kv_cache/ of another "
                    "study or model; delete them and run again."
                )


def _bounds(name: str, sample: NDArray[np.float64]) -> Row:
    """Columns of a mean with its interval; nulls without a sample."""
    columns = (name, f"{name}_low", f"{name}_high")
    if not len(sample):
        return dict.fromkeys(columns)
    interval = bootstrap_mean(sample)
    return dict(zip(columns, (interval.estimate, interval.low, interval.high), strict=True))


def _first(values: pd.Series) -> Any:
    """The first value that is there, or None."""
    there = values.dropna()
    return there.iloc[0] if len(there) else None


def is_float(table: pd.DataFrame) -> pd.Series:
    """Which rows of KV_CACHE are of policies that round nothing."""
    return table["bits"].isna()


def is_static(table: pd.DataFrame) -> pd.Series:
    """Which rows of KV_CACHE are of our caches with the same bits for every token."""
    return table["bits"].notna() & table["feature"].isna() & table["library"].isna()


def reference_of(policies: Policies) -> str:
    """The policy that rounds nothing."""
    return next(name for name, entry in policies.items() if not entry)


def lengths(cells: Cells) -> pd.DataFrame:
    """The CACHE_LENGTHS table."""
    rows: list[Row] = []
    for (model, policy), measured in cells.items():
        prompts = measured.memory[measured.memory["experiment"] == "prompt"].set_index(["scheme", "index"])
        for (scheme, tokens), samples in best_samples(measured.latency, ARM).groupby(ARM):
            held = prompts.reindex([(scheme, tokens)]).iloc[0]
            reasons = pd.Series([*samples["reason"], held["reason"]], dtype=object)
            rows.append(
                {
                    "model": model,
                    "scheme": scheme,
                    "policy": policy,
                    "prompt_tokens": tokens,
                    **{name: held[name] for name in ("cache_bytes", "predicted_bytes", "effective_bits", "peak_bytes")},
                    **spread(samples),
                    "dtype": samples["dtype"].iloc[0],
                    "device": samples["device"].iloc[0],
                    "reason": _first(reasons),
                }
            )
    whole = dict.fromkeys(("cache_bytes", "peak_bytes"), "Int64")
    return pd.DataFrame(rows).astype({**whole, "predicted_bytes": "float64", "effective_bits": "float64"})


def _grids(entry: Mapping[str, Any]) -> tuple[str, int]:
    return entry.get("keys", KEYS), entry.get("group_size", GROUP_SIZE)


def _described(policy: str, policies: Policies) -> Row:
    """The columns of KV_CACHE that say what a policy is."""
    entry = policies[policy]
    keys, group_size = (None, None) if not entry or "library" in entry else _grids(entry)
    return {
        "policy": policy,
        "place": list(policies).index(policy),
        "feature": entry.get("feature"),
        "library": entry.get("library"),
        "keys": keys,
        "group_size": group_size,
        "bits": entry.get("average_bits", entry.get("bits")),
    }


def _scored(own: _Scores, base: _Scores) -> Row:
    """The columns of KV_CACHE that say how well a policy does."""
    windows, reference = own.windows, base.windows
    return {
        "effective_bits": own.effective_bits,
        "windows": len(windows),
        "nll": windows["nll"].mean(),
        **_bounds("nll_change", (windows["nll"] - reference["nll"]).to_numpy()),
        **_bounds("kl_divergence", windows["kl_divergence"].to_numpy()),
        "same_top_token": windows["same_top_token"].mean(),
        "items": len(own.correct),
        **_bounds("accuracy", own.correct),
        **_bounds("accuracy_change", own.correct - base.correct),
    }


def summarize(cells: Cells, lengths: pd.DataFrame, policies: Policies) -> pd.DataFrame:
    """The KV_CACHE table of the raw tables and their CACHE_LENGTHS. `policies` are entries of the configuration.

    Raises InferometerError where a policy and the float cache were not scored on the same windows or questions.
    """
    rows: list[Row] = []
    reference = reference_of(policies)
    longest = lengths.groupby("model")["prompt_tokens"].max()
    for names, own in lengths.groupby(["model", "policy", "scheme"], sort=False):
        model, policy, scheme = map(str, names)
        scores, base = (_Scores.of(cells[model, name], scheme) for name in (policy, reference))
        if scores.windows.empty and scores.endings.empty:  # could not run
            base = scores
        scores.check(base, f"{policy} and {reference} of {model}, {scheme},")
        last = own.set_index("prompt_tokens").reindex([longest[model]]).iloc[0]
        rows.append(
            {
                "model": model,
                "scheme": scheme,
                **_described(policy, policies),
                **_scored(scores, base),
                "prompt_tokens": longest[model],
                **{name: last[name] for name in ("cache_bytes", "predicted_bytes", "peak_bytes")},
                "decode_ms": last["latency_ms"],
                "decode_ms_q25": last["latency_ms_q25"],
                "decode_ms_q75": last["latency_ms_q75"],
                **{name: 0 if pd.isna(last[name]) else int(last[name]) for name in ("samples", "contaminated")},
                "dtype": own["dtype"].iloc[0],
                "device": own["device"].iloc[0],
                "reason": _first(own["reason"]),
            }
        )
    return pd.DataFrame(rows).astype(dict.fromkeys(("cache_bytes", "peak_bytes", "group_size"), "Int64"))


def paired(policies: Policies) -> Iterator[tuple[str, str]]:
    """Each policy that chooses bits, with those it is held against: at random, and the same bits for all tokens."""
    for policy, entry in policies.items():
        if "feature" not in entry:
            continue
        for other, against in policies.items():
            at_random = against.get("feature") == "random" != entry["feature"]
            same = not ({"feature", "library"} & against.keys()) and not (
                against.get("sink_tokens", 0) or against.get("recent_tokens", 0)
            )
            bits = against.get("average_bits" if at_random else "bits")
            if (at_random or same) and bits == entry["average_bits"] and _grids(entry) == _grids(against):
                yield policy, other


def pairs(cells: Cells, policies: Policies) -> pd.DataFrame:
    """The CACHE_PAIRS table of the raw tables; pairs of which one could not run are left out.

    Raises InferometerError where two policies were not scored on the same windows or questions.
    """
    rows: list[Row] = []
    for model in dict.fromkeys(model for model, _ in cells):
        for policy, against in paired(policies):
            both = cells[model, policy], cells[model, against]
            for scheme in dict.fromkeys(both[0].perplexity["scheme"]):
                own, other = (_Scores.of(measured, scheme) for measured in both)
                if own.windows.empty or other.windows.empty:
                    continue
                own.check(other, f"{policy} and {against} of {model}, {scheme},")
                change = own.windows - other.windows
                rows.append(
                    {
                        "model": model,
                        "scheme": scheme,
                        "policy": policy,
                        "against": against,
                        **_bounds("nll_change", change["nll"].to_numpy()),
                        **_bounds("kl_change", change["kl_divergence"].to_numpy()),
                        **_bounds("accuracy_change", own.correct - other.correct),
                        "effective_bits_change": own.effective_bits - other.effective_bits,
                    }
                )
    return pd.DataFrame(rows, columns=[column.name for column in CACHE_PAIRS.columns])
