"""What the section `decision` shows: every scheme that a reader may choose, with what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inferometer.evaluation.schemes_summary import pareto
from inferometer.evaluation.tables import SCHEMES
from inferometer.kv_cache.tables import KV_CACHE
from inferometer.profiling.tables import PROFILE
from inferometer.tables import read_table

FLOAT_CACHE = "float"


@dataclass(frozen=True)
class Known:
    """A quantity with the bounds within which it lies; all the same where it is exact, all missing where not known."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything is known at all."""
        return self.value is not None


@dataclass(frozen=True)
class Candidate:
    """One scheme of one model, or the float model with a rounded KV cache (`policy`).

    Sizes are in MB and kB of 1000 bytes, speeds in tokens per second, `accuracy_change` in percentage points. `front`
    is "front" where no other candidate of the model with a float cache has as few bytes and a lower perplexity,
    "undecided" where others are better but none by more than the intervals allow, and empty elsewhere.
    """

    model: str
    scheme: str
    policy: str | None
    engine: str
    front: str
    weights_mb: Known
    cache_kb_per_token: Known
    ratio: Known
    accuracy_change: Known
    accuracy: Known
    prefill: Known
    decode: Known

    @property
    def name(self) -> str:
        """How the page calls it."""
        return self.scheme if self.policy is None else f"{self.scheme} with cache {self.policy}"


@dataclass(frozen=True)
class Decision:
    """The section's data: candidates in the order of the study, and the lengths that speeds were taken at."""

    candidates: list[Candidate]
    prefill_tokens: int | None
    decode_tokens: int | None
    unrun: list[str]


def _known(row: Any, name: str, factor: float = 1.0, *, percent: bool = False) -> Known:
    """A quantity of a row with the columns of that name that end in _low and _high; exact without those."""
    scale = 100.0 if percent else factor
    values = [row[column] if column in row.index else row[name] for column in (name, f"{name}_low", f"{name}_high")]
    return Known() if pd.isna(values[0]) else Known(*(float(value) * scale for value in values))


def _per_second(tokens: int, row: Any, name: str) -> Known:
    """Tokens per second of a median latency in milliseconds, between those of its quartiles."""
    found = [row[column] for column in (name, f"{name}_q75", f"{name}_q25")]
    return Known() if pd.isna(found[0]) else Known(*(1000.0 * tokens / float(value) for value in found))


def fronts(schemes: pd.DataFrame) -> dict[str, str]:
    """For each scheme of one model's SCHEMES rows its place at the Pareto front, as `Candidate.front` says it."""
    front = set(pareto(schemes))
    said = {}
    for row in schemes.to_dict("records"):
        others = schemes[(schemes["weights_bytes"] <= row["weights_bytes"]) & (schemes["scheme"] != row["scheme"])]
        surely_beaten = bool((others["ratio_high"] < row["ratio_low"]).any())
        said[row["scheme"]] = "front" if row["scheme"] in front else "" if surely_beaten else "undecided"
    return said


def _prefill(profile: pd.DataFrame, row: Any, tokens: int | None) -> Known:
    """Reading speed of a scheme in the dtype that it was evaluated in, alone, after a prompt of `tokens`."""
    alike = {"model": row["model"], "scheme": row["scheme"], "dtype": row["dtype"], "prompt_tokens": tokens}
    found = profile[np.logical_and.reduce([profile[name] == value for name, value in alike.items()])]
    return _per_second(int(found.iloc[0]["prompt_tokens"]), found.iloc[0], "latency_ms") if len(found) else Known()


def _of_cache(row: Any | None) -> tuple[Known, Known]:
    """Kilobytes of the cache per token, and tokens written per second, of a row of KV_CACHE."""
    if row is None or pd.isna(row["cache_bytes"]):
        return Known(), Known()
    size = row["cache_bytes"] / row["prompt_tokens"] / 1000
    return Known(size, size, size), _per_second(1, row, "decode_ms")


def _changed(row: Any) -> Known:
    """Perplexity with a rounded cache over that with a float one, from the paired change of nll."""
    values = [row[f"nll_change{end}"] for end in ("", "_low", "_high")]
    return Known() if pd.isna(values[0]) else Known(*(float(np.exp(value)) for value in values))


def _candidates(
    schemes: pd.DataFrame, caches: pd.DataFrame, profile: pd.DataFrame, reference: str, tokens: int | None
) -> list[Candidate]:
    """Candidates of one model: its schemes with a float cache, then the float model with each rounded cache."""
    places = fronts(schemes)
    by_cell = {(row["scheme"], row["policy"]): row for _, row in caches.iterrows()}
    float_kb = _of_cache(by_cell.get((reference, FLOAT_CACHE)))[0]
    found = []
    for _, row in schemes.iterrows():
        own = dict(model=row["model"], scheme=row["scheme"], engine=row["engine"])
        weights, simulated = _known(row, "weights_bytes", 1e-6), row["engine"] == "simulated"
        prefill = Known() if simulated else _prefill(profile, row, tokens)
        decode = Known() if simulated else _of_cache(by_cell.get((row["scheme"], FLOAT_CACHE)))[1]
        change, accuracy = (_known(row, name, percent=True) for name in ("accuracy_change", "accuracy"))
        found.append(
            Candidate(
                **own,
                policy=None,
                front=places[row["scheme"]],
                weights_mb=weights,
                cache_kb_per_token=float_kb,
                ratio=_known(row, "ratio"),
                accuracy_change=change,
                accuracy=accuracy,
                prefill=prefill,
                decode=decode,
            )
        )
        if row["scheme"] == reference:
            rounded = [cell for (scheme, policy), cell in by_cell.items() if scheme == reference and policy != FLOAT_CACHE]
            base = found[-1]
    for cell in sorted(rounded, key=lambda cell: cell["place"]):
        size, decode = _of_cache(cell)
        found.append(
            Candidate(
                model=base.model,
                scheme=base.scheme,
                engine=base.engine,
                policy=cell["policy"],
                front="",
                weights_mb=base.weights_mb,
                cache_kb_per_token=size,
                ratio=_changed(cell),
                accuracy_change=_known(cell, "accuracy_change", percent=True),
                accuracy=_known(cell, "accuracy", percent=True),
                prefill=Known(),
                decode=decode,
            )
        )
    return found
