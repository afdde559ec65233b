"""Differences of two runs on the very same texts and questions, unit by unit, from their raw tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inferometer.compare.folder import Folder
from inferometer.evaluation.choices_summary import IDENTITY, correct_items
from inferometer.evaluation.tables import CHOICES, FIDELITY, WINDOWS
from inferometer.intervals import Interval, bootstrap_mean
from inferometer.kv_cache.tables import CACHE_CHOICES, CACHE_PERPLEXITY
from inferometer.manifest import Manifest
from inferometer.tables import Table

Sample = NDArray[np.float64]
Row = Mapping[str, Any]
FLOAT_CACHE = "float"
TOKENIZER = ("tokenizer", "vocab", "merges", "spiece")  # how the names of its files begin
LEAST_UNITS = 2


@dataclass(frozen=True)
class Raw:
    """Units of one run: `identity` names what was asked, `found` is what was measured of each."""

    identity: pd.DataFrame
    found: Sample


Reader = Callable[[Folder, Row], Raw | None]


def _file(table: Table, row: Row) -> str:
    """The file of a raw table that a summary's row comes from."""
    return (
        table.path.replace("<model>", row["model"])
        .replace("<scheme>", row["scheme"])
        .replace("<policy>", str(row.get("policy")))
    )


def _digests(folder: Folder, names: pd.Series, where: str) -> pd.Series:
    """The SHA-256 of the source that each row is of."""
    return names.map({name: folder.digest(f"{where}/{name}.parquet") for name in names.unique()})


def _windows(folder: Folder, row: Row) -> Raw | None:
    """The nll of each window of a scheme."""
    found = folder.of_version(WINDOWS, _file(WINDOWS, row))
    if found is None:
        return None
    found = found.sort_values("window", ignore_index=True)
    texts = _digests(folder, found["corpus"], "sources/corpora")
    identity = found[["corpus", "protocol", "window", "tokens"]].assign(texts=texts)
    return Raw(identity, found["nll"].to_numpy(dtype=np.float64))


def _fidelity(column: str) -> Reader:
    def read(folder: Folder, row: Row) -> Raw | None:
        """The mean over each window's tokens of a column of FIDELITY."""
        found, windows = folder.of_version(FIDELITY, _file(FIDELITY, row)), _windows(folder, row)
        if found is None or windows is None or found.empty:
            return None
        means = found.groupby("window")[column].mean()
        return Raw(windows.identity, means.to_numpy(dtype=np.float64)) if len(means) == len(windows.found) else None

    return read


def _right(metric: str) -> Reader:
    def read(folder: Folder, row: Row) -> Raw | None:
        """For each question whether its answer was right; of one question set where the row names one."""
        found = folder.of_version(CHOICES, _file(CHOICES, row))
        return None if found is None else _answers(folder, found, metric, row.get("question_set"))

    return read


def _answers(folder: Folder, choices: pd.DataFrame, metric: str, question_set: str | None = None) -> Raw:
    """1 for each item that was answered rightly, 0 for others, of a CHOICES table or one with its columns."""
    if question_set is not None:
        choices = choices[choices["question_set"] == question_set]
    ordered = choices.sort_values(["question_set", "item", "ending"], ignore_index=True)
    questions = _digests(folder, ordered["question_set"], "sources/questions")
    return Raw(ordered[IDENTITY].assign(texts=questions), correct_items(ordered)[metric])


def _cached(column: str) -> Reader:
    def read(folder: Folder, row: Row) -> Raw | None:
        """The mean over each window's tokens of a column of CACHE_PERPLEXITY."""
        found, settings = folder.of_version(CACHE_PERPLEXITY, _file(CACHE_PERPLEXITY, row)), folder.configuration
        if found is None or settings is None:  # only the configuration says which text it was
            return None
        own = found[found["scheme"] == row["scheme"]].sort_values(["window", "position"], ignore_index=True)
        text = folder.digest(f"sources/corpora/{settings.get('kv_cache.corpus')}.parquet")
        by_window = own.groupby("window")
        identity = by_window["position"].agg(["min", "max", "size"]).reset_index().assign(texts=text)
        return Raw(identity, by_window[column].mean().to_numpy(dtype=np.float64))

    return read


def _cached_right(folder: Folder, row: Row) -> Raw | None:
    """For each question whether its answer was right after its context was stored in a cache."""
    found = folder.of_version(CACHE_CHOICES, _file(CACHE_CHOICES, row))
    return None if found is None else _answers(folder, found[found["scheme"] == row["scheme"]], "acc_norm")


def _less(read: Reader, base: Callable[[Row], Row]) -> Reader:
    """What a scheme or policy differs by from another one, unit by unit."""

    def difference(folder: Folder, row: Row) -> Raw | None:
        own, other = read(folder, row), read(folder, base(row))
        if own is None or other is None or len(own.found) != len(other.found):
            return None
        return Raw(own.identity, own.found - other.found)

    return difference


def _reference(row: Row) -> Row:
    return {**row, "scheme": row["reference"]}


def _base(row: Row) -> Row:
    return {**row, "scheme": row["base"]}


def _float_cache(row: Row) -> Row:
    return {**row, "policy": FLOAT_CACHE}


READERS: Mapping[tuple[str, str], Reader] = {  # summary and quantity: what its raw units are
    **{(name, "perplexity"): _windows for name in ("PERPLEXITY", "SCHEMES")},
    **{(name, "ratio"): _less(_windows, _reference) for name in ("PERPLEXITY", "SCHEMES")},
    ("GAINS", "ratio"): _less(_windows, _base),
    ("SCHEMES", "kl_divergence"): _fidelity("kl_divergence"),
    ("SCHEMES", "top_agreement"): _fidelity("same_top_token"),
    ("SCHEMES", "accuracy"): _right("acc_norm"),
    ("SCHEMES", "accuracy_change"): _less(_right("acc_norm"), _reference),
    **{("ACCURACY", metric): _right(metric) for metric in ("acc", "acc_norm")},
    **{("ACCURACY", f"{metric}_change"): _less(_right(metric), _reference) for metric in ("acc", "acc_norm")},
    ("KV_CACHE", "nll_change"): _less(_cached("nll"), _float_cache),
    ("KV_CACHE", "kl_divergence"): _cached("kl_divergence"),
    ("KV_CACHE", "accuracy"): _cached_right,
    ("KV_CACHE", "accuracy_change"): _less(_cached_right, _float_cache),
}
FACTORS = {"perplexity", "ratio"}  # quantities that are exp of a mean, whose difference is a factor


def _tokenizer(folder: Folder, model: str) -> list[tuple[str, str]]:
    path = folder.path / model / "sources/model.json"
    if not path.exists():
        return []
    return [(file.name, file.sha256) for file in Manifest.read(path).files if file.name.startswith(TOKENIZER)]


def paired_difference(before: Folder, after: Folder, table: str, quantity: str, row: Row) -> Interval | None:
    """How much a quantity of a summary's row differs, after less before, with its 95 % paired bootstrap interval.

    For FACTORS it is the factor after over before. The units are windows of text or questions, and what was measured on
    the same one is subtracted before anything is resampled. Nothing where the raw tables are missing, where either run
    lacks the texts' digests, or where texts, tokenizer or questions are not the same.
    """
    read = READERS.get((table, quantity))
    if read is None:
        return None
    first, second = read(before, row), read(after, row)
    if first is None or second is None or first.identity["texts"].isna().any():
        return None
    tokenizers = [_tokenizer(folder, row["model"]) for folder in (before, after)]
    if not first.identity.equals(second.identity) or not tokenizers[0] or tokenizers[0] != tokenizers[1]:
        return None
    if len(first.found) != len(second.found) or len(first.found) < LEAST_UNITS:
        return None
    found = bootstrap_mean(second.found - first.found)
    if quantity not in FACTORS:
        return found
    estimate, low, high = np.exp([found.estimate, found.low, found.high])
    return Interval(float(estimate), float(low), float(high))
