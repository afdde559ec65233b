"""What the section `decision` shows: every scheme that a reader may choose, with what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from inferometer.evaluation.schemes_summary import pareto
from inferometer.kv_cache.tables import KV_CACHE
from inferometer.profiling.tables import PROFILE
from inferometer.report.formats import interval, number, ratio, ratio_interval
from inferometer.tables import Table, read_table, records

FLOAT_CACHE = "float"
Cells = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Quantity:
    """Something that a reader may limit or look for: `key` names it in the page, `goal` says what one looks for."""

    key: str
    name: str
    unit: str
    better: Literal["least", "most"]
    goal: str

    @property
    def limit(self) -> str:
        """Which side of a limit is allowed."""
        return "at most" if self.better == "least" else "at least"


QUANTITIES = (
    Quantity("weights", "weights", "MB", "least", "fewest bytes of weights"),
    Quantity("cache", "KV cache", "kB per token", "least", "smallest KV cache"),
    Quantity("ratio", "perplexity ratio", "times that of float", "least", "lowest perplexity ratio"),
    Quantity("change", "change of accuracy", "percentage points", "most", "least loss of accuracy"),
    Quantity("accuracy", "accuracy", "%", "most", "highest accuracy"),
    Quantity("prefill", "reading", "tokens/s", "most", "fastest reading"),
    Quantity("decode", "writing", "tokens/s", "most", "fastest writing"),
    Quantity("long", "writing after a long text", "tokens/s", "most", "fastest writing after a long text"),
)


@dataclass(frozen=True)
class Known:
    """A quantity between its bounds, which are the value itself where it is exact."""

    value: float
    low: float
    high: float

    def text(self, key: str) -> str:
        """As a reader wants it: the interval only where there is one."""
        plain, bounds = (ratio, ratio_interval) if key == "ratio" else (number, interval)
        exact = self.low == self.value == self.high
        return plain(self.value) if exact else f"{plain(self.value)} {bounds(self.low, self.high)}"


@dataclass(frozen=True)
class Candidate:
    """One scheme of one model with a float KV cache, or the float model with a rounded cache.

    `known` holds by their keys those of QUANTITIES that are known. `front` is "front" where no other scheme of the
    model has as few bytes and a lower perplexity, "not ruled out" where one has, but none by more than the intervals
    allow.
    """

    model: str
    name: str
    simulated: bool
    front: str
    known: Mapping[str, Known]


@dataclass(frozen=True)
class Decision:
    """The section's data: candidates in the order of the study, and by model the tokens that speeds were taken after.

    `long_tokens` is of the quantity "long", `tokens` of the other speeds.
    """

    candidates: list[Candidate]
    quantities: tuple[Quantity, ...]
    ranges: Mapping[str, tuple[float, float]]
    tokens: Mapping[str, int]
    long_tokens: Mapping[str, int]


def _rows(table: Table, results: Path) -> pd.DataFrame:
    """The rows of a table, or none where there is no such file: what it would tell is then not known of any scheme."""
    path = results / table.path
    return read_table(table, path) if path.exists() else pd.DataFrame(columns=[column.name for column in table.columns])


def _exact(value: float) -> Known:
    return Known(value, value, value)


def _bounded(row: Mapping[str, Any], name: str, scale: float = 1.0) -> Known:
    """A quantity of a row with the columns of that name that end in _low and _high."""
    value, low, high = (float(row[f"{name}{end}"]) * scale for end in ("", "_low", "_high"))
    return Known(value, low, high)


def _speed(tokens: int, row: Mapping[str, Any], name: str) -> Known:
    """Tokens per second of a median latency in milliseconds, between those of its quartiles."""
    value, low, high = (1000.0 * tokens / float(row[column]) for column in (name, f"{name}_q75", f"{name}_q25"))
    return Known(value, low, high)


def fronts(schemes: pd.DataFrame) -> dict[str, str]:
    """For each scheme of one model's SCHEMES rows its place at the Pareto front, as `Candidate.front` says it."""
    front, said = set(pareto(schemes)), {}
    for row in records(schemes):
        others = schemes[(schemes["weights_bytes"] <= row["weights_bytes"]) & (schemes["scheme"] != row["scheme"])]
        beaten = bool((others["ratio_high"] < row["ratio_low"]).any())
        said[str(row["scheme"])] = "front" if row["scheme"] in front else "" if beaten else "not ruled out"
    return said


def _profiled(profile: pd.DataFrame) -> Cells:
    """Rows of PROFILE of the longest prompt that a whole model took alone, by scheme with dtype, and phase."""
    rows = profile[(profile["batch"] == 1) & ~profile["extrapolated"].astype(bool) & profile["latency_ms"].notna()]
    rows = rows[(rows["layers"] == rows["layers"].max()) & (rows["prompt_tokens"] == rows["prompt_tokens"].max())]
    return {(f"{row['scheme']} {row['dtype']}", str(row["phase"])): row for row in records(rows)}


def _of_cache(row: Mapping[str, Any] | None) -> dict[str, Known]:
    """What a row of KV_CACHE knows of size and speed: nothing where the policy could not be run."""
    found = {}
    if row is not None and not pd.isna(row["cache_bytes"]):
        found["cache"] = _exact(float(row["cache_bytes"]) / float(row["prompt_tokens"]) / 1000)
    if row is not None and not pd.isna(row["decode_ms"]):
        found["long"] = _speed(1, row, "decode_ms")
    return found


def _of_scheme(row: Mapping[str, Any], profiled: Cells, caches: Cells, reference: str) -> dict[str, Known]:
    """All that is known of a scheme with a float cache. Of simulated arithmetic no speed is."""
    known = {
        "weights": _exact(float(row["weights_bytes"]) / 1e6),
        "ratio": _bounded(row, "ratio"),
        "change": _bounded(row, "accuracy_change", 100),
        "accuracy": _bounded(row, "accuracy", 100),
    }
    known |= {key: size for key, size in _of_cache(caches.get((reference, FLOAT_CACHE))).items() if key == "cache"}
    if row["engine"] == "simulated":
        return known
    own = f"{row['scheme']} {row['dtype']}"
    if read := profiled.get((own, "prefill")):
        known["prefill"] = _speed(int(read["prompt_tokens"]), read, "latency_ms")
    if written := profiled.get((own, "decode")):
        known["decode"] = _speed(1, written, "latency_ms")
    return known | _of_cache(caches.get((row["scheme"], FLOAT_CACHE)))


def _with_cache(row: Mapping[str, Any], weights: Known) -> dict[str, Known]:
    """All that is known of the float model with a rounded cache. Its accuracy is of other questions than others'."""
    values = (float(np.exp(row[f"nll_change{end}"])) for end in ("", "_low", "_high"))
    known = {"weights": weights, "ratio": Known(*values), "change": _bounded(row, "accuracy_change", 100)}
    return known | _of_cache(row)


def decision(results: Path, schemes: pd.DataFrame, reference: str) -> Decision:
    """The section's data; `schemes` is the SCHEMES table in the order of the study, `reference` its float scheme.

    Rounded caches are candidates with float weights, where what both cost was measured together.
    """
    profile, every_cache = (_rows(table, results) for table in (PROFILE, KV_CACHE))
    candidates: list[Candidate] = []
    tokens: dict[str, int] = {}
    long_tokens: dict[str, int] = {}
    for model, rows in schemes[schemes["ratio"].notna()].groupby("model", sort=False):
        profiled = _profiled(profile[profile["model"] == model])
        own = every_cache[(every_cache["model"] == model) & every_cache["nll_change"].notna()].sort_values("place")
        caches = {(str(row["scheme"]), str(row["policy"])): row for row in records(own)}
        places = fronts(rows)
        for row in records(rows):
            known, scheme = _of_scheme(row, profiled, caches, reference), str(row["scheme"])
            candidates.append(Candidate(str(model), scheme, row["engine"] == "simulated", places[scheme], known))
        weights = next(one.known["weights"] for one in candidates if (one.model, one.name) == (model, reference))
        candidates += [
            Candidate(
                str(model),
                f"{reference} with cache {policy}",
                simulated=False,
                front="",
                known=_with_cache(row, weights),
            )
            for (scheme, policy), row in caches.items()
            if scheme == reference and policy != FLOAT_CACHE
        ]
        tokens |= {str(model): int(row["prompt_tokens"]) for row in profiled.values()}
        long_tokens |= {str(model): int(row["prompt_tokens"]) for row in caches.values()}
    ranges = {}
    for quantity in QUANTITIES:
        if values := [one.known[quantity.key].value for one in candidates if quantity.key in one.known]:
            ranges[quantity.key] = (min(values), max(values))
    shown = tuple(quantity for quantity in QUANTITIES if quantity.key in ranges)
    return Decision(candidates, shown, ranges, tokens, long_tokens)
