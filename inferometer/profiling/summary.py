"""From raw samples to medians, slopes and knees, each beside what theory predicts; needs no torch."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from inferometer.capacity.roofline import Roofs
from inferometer.capacity.shapes import Shape
from inferometer.capacity.storage import DTYPE_BYTES, kv_bytes_per_token
from inferometer.errors import InferometerError
from inferometer.profiling.fits import extrapolated, knee, line, ratio_of_medians
from inferometer.profiling.kernels_summary import summarize
from inferometer.profiling.roofline import Cell, Cost, Prediction, cost, predict
from inferometer.profiling.tables import QUANTITIES
from inferometer.samples import best_samples, spread

SUBJECT = ["scheme", "dtype", "layers"]
CELL = [*SUBJECT, "prompt_tokens", "batch", "phase"]
RISING = ("prefill", "end_to_end")  # phases that grow with the prompt

Row = dict[str, Any]


@dataclass(frozen=True)
class Theory:
    """What predictions need: a model's shape, or why it is not known, the schemes and the roofs.

    `layers` is how many the model has in full, of which fewer may have run; None where all did.
    """

    shape: Shape | str
    layers: int | None
    schemes: Mapping[str, Mapping[str, Any]]
    roofs: Roofs

    def _one(self, scheme: str, cell: Cell) -> tuple[Cost, Prediction] | None:
        if isinstance(self.shape, str):
            return None
        try:
            own = cost(self.shape, self.schemes[scheme], cell)
            return own, predict(own, self.roofs)
        except InferometerError:  # formats whose bytes only a library knows, dtypes without a measured peak
            return None

    def prediction(self, row: Row, new_tokens: int) -> Row:
        """The columns of PROFILE from `flops` to `bound` for a cell of which `latency_ms` is measured."""
        nothing = dict.fromkeys(("flops", "bytes", "compute_ms", "memory_ms", "predicted_ms", "ratio", "bound"))
        tokens, batch, layers, dtype = (row[name] for name in ("prompt_tokens", "batch", "layers", "dtype"))
        decoded = tokens + math.ceil(new_tokens / 2)  # the context of the step in the middle
        calls = {
            "prefill": (1, Cell(tokens, tokens, batch, layers, dtype)),
            "decode": (new_tokens - 1, Cell(decoded, 1, batch, layers, dtype)),
        }
        parts = calls if row["phase"] == "end_to_end" else {row["phase"]: (1, calls[row["phase"]][1])}
        found = [(times, self._one(row["scheme"], cell)) for times, cell in parts.values()]
        known = [(times, *own) for times, own in found if own is not None]
        if len(known) < len(found) or math.isnan(row["latency_ms"]):
            return nothing
        total = Prediction(
            sum(times * own.compute_ms for times, _, own in known),
            sum(times * own.memory_ms for times, _, own in known),
            sum(times * own.predicted_ms for times, _, own in known),
        )
        return {
            "flops": sum(times * own.total_flops for times, own, _ in known),
            "bytes": sum(times * own.bytes for times, own, _ in known),
            "compute_ms": total.compute_ms,
            "memory_ms": total.memory_ms,
            "predicted_ms": total.predicted_ms,
            "ratio": row["latency_ms"] / total.predicted_ms,
            "bound": total.bound(row["latency_ms"]),
        }


def _tokens_per_s(row: Row, new_tokens: int) -> float:
    tokens = {"prefill": row["prompt_tokens"], "decode": 1, "end_to_end": new_tokens}[row["phase"]]
    return float(1000 * row["batch"] * tokens / row["latency_ms"])


def _reason(samples: pd.DataFrame) -> str | None:
    """Why an arm was not measured, or None where it was."""
    reason = samples["reason"].iloc[0]
    return None if pd.isna(reason) else str(reason)


def _cells(latency: pd.DataFrame) -> Iterator[Row]:
    """Each cell that was to be measured."""
    for values, taken in best_samples(latency, CELL).groupby(CELL):
        row = dict(zip(CELL, values, strict=True)) | spread(taken)
        yield row | {"reason": _reason(taken), "device": taken["device"].iloc[0]}


def _extrapolated_cells(latency: pd.DataFrame, layers: int) -> Iterator[Row]:
    """Cells of the model in full, where two numbers of layers ran."""
    timed = best_samples(latency[latency["calls"] > 0], CELL)
    names = [name for name in CELL if name != "layers"]
    for values, taken in timed.groupby(names):
        by_layers: Any = taken.groupby("layers")["wall_ms"]
        walls = {int(count): own.to_numpy(float) for count, own in by_layers}
        if len(walls) < 2 or layers <= max(walls):
            continue
        fewer, *_, more = sorted(walls)
        found = extrapolated(walls[fewer], walls[more], fewer, more, layers)
        bounds = {"latency_ms": found.estimate, "latency_ms_low": found.low, "latency_ms_high": found.high}
        nothing = spread(taken.head(0)) | {"samples": len(taken), "contaminated": int(taken["contaminated"].sum())}
        own = dict(zip(names, values, strict=True)) | {"layers": layers, "extrapolated": True}
        yield nothing | own | bounds | {"reason": None, "device": taken["device"].iloc[0]}


def profile(latency: Mapping[str, pd.DataFrame], theories: Mapping[str, Theory]) -> pd.DataFrame:
    """The PROFILE table of the LATENCY tables, by model."""
    rows = []
    for model, table in latency.items():
        theory, new_tokens = theories[model], int(table["new_tokens"].iloc[0])
        nothing = {"extrapolated": False, "latency_ms_low": None, "latency_ms_high": None}
        measured = [row | nothing for row in _cells(table)]
        for row in [*measured, *_extrapolated_cells(table, theory.layers or 0)]:
            rates = {"tokens_per_s": _tokens_per_s(row, new_tokens), **theory.prediction(row, new_tokens)}
            rows.append({"model": model, **row, **rates})
    return pd.DataFrame(rows)


def knees(latency: Mapping[str, pd.DataFrame], profile: pd.DataFrame) -> pd.DataFrame:
    """The KNEES table: of all subjects that ran at four lengths or more, by the LATENCY tables and their PROFILE."""
    rows: list[Row] = []
    names = [*SUBJECT, "batch", "phase"]
    for model, table in latency.items():
        timed = best_samples(table[(table["calls"] > 0) & table["phase"].isin(RISING)], CELL)
        for values, taken in timed.groupby(names):
            found = knee(taken[["prompt_tokens", "wall_ms"]].set_axis(["tokens", "ms"], axis=1))
            if found is None:
                continue
            own = dict(zip(names, values, strict=True))
            same = (profile["model"] == model) & ~profile["extrapolated"]
            for name, value in own.items():
                same &= profile[name] == value
            bounds = profile[same].set_index("prompt_tokens")["bound"]
            shortest, longest = int(taken["prompt_tokens"].min()), int(taken["prompt_tokens"].max())
            rows.append(
                {
                    "model": model,
                    **own,
                    "knee_tokens": found.knee_tokens,
                    "knee_tokens_low": found.low,
                    "knee_tokens_high": found.high,
                    "has_flat": found.has_flat,
                    "rises": found.rises,
                    "flat_ms": found.flat_ms,
                    "ms_per_token": found.ms_per_token,
                    "error": found.error,
                    "shortest_tokens": shortest,
                    "longest_tokens": longest,
                    "bound_below": bounds[shortest],
                    "bound_above": bounds[longest],
                    "device": taken["device"].iloc[0],
                }
            )
    return pd.DataFrame(rows)


def _slope(row: Row, predicted: int) -> Row:
    return row | {"predicted_bytes_per_token": float(predicted), "ratio": row["bytes_per_token"] / predicted}


def _measured_slopes(memory: pd.DataFrame) -> Iterator[Row]:
    for values, taken in memory[memory["reason"].isna()].groupby(SUBJECT):
        own = dict(zip(SUBJECT, values, strict=True)) | {"device": taken["device"].iloc[0], "extrapolated": False}
        if taken["new_tokens"].nunique() < 3:
            continue
        for quantity in QUANTITIES:
            fit = line(taken["new_tokens"].to_numpy(float), taken[quantity].to_numpy(float))
            yield own | {
                "quantity": quantity,
                "points": fit.points,
                "bytes_per_token": fit.slope,
                "standard_error": fit.standard_error,
                "intercept_bytes": fit.intercept,
                "r_squared": fit.r_squared,
                "p_value": fit.p_value,
            }


def _extrapolated_slopes(measured: list[Row], layers: int) -> Iterator[Row]:
    """Slope and intercept at all layers by the line through two numbers of layers; errors add up as variances do.

    Not of peaks, which depend on what the allocator happens to hold.
    """
    table = pd.DataFrame([row for row in measured if row["quantity"] != "peak_bytes"])
    for _, group in table.groupby(["scheme", "dtype", "quantity"]):
        rows: list[Any] = group.sort_values("layers").to_dict("records")
        if len(rows) < 2 or layers <= rows[-1]["layers"]:
            continue
        fewer, more = rows[0], rows[-1]
        weight = (layers - fewer["layers"]) / (more["layers"] - fewer["layers"])
        both = {
            name: (1 - weight) * fewer[name] + weight * more[name] for name in ("bytes_per_token", "intercept_bytes")
        }
        error = math.hypot((1 - weight) * fewer["standard_error"], weight * more["standard_error"])
        nothing: Row = {"r_squared": None, "p_value": None}
        own = {"layers": layers, "extrapolated": True, "standard_error": error}
        yield more | own | both | nothing | {"points": fewer["points"] + more["points"]}


def slopes(memory: Mapping[str, pd.DataFrame], theories: Mapping[str, Theory]) -> pd.DataFrame:
    """The SLOPES table of the MEMORY tables, by model; models of unknown families are left out."""
    rows: list[Row] = []
    for model, table in memory.items():
        theory = theories[model]
        if isinstance(theory.shape, str):
            continue
        measured = list(_measured_slopes(table))
        for row in [*measured, *(_extrapolated_slopes(measured, theory.layers or 0) if measured else ())]:
            each = kv_bytes_per_token(theory.shape, 8 * DTYPE_BYTES[row["dtype"]]) // theory.shape.layers
            rows.append({"model": model, **_slope(row, each * row["layers"])})
    return pd.DataFrame(rows)


def cache_speed(cache: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The CACHE_SPEED table of the CACHE tables, by model."""
    rows: list[Row] = []
    arm = ["prompt_tokens", "new_tokens", "cache"]
    for model, table in cache.items():
        taken = best_samples(table, arm)
        for values, samples in taken.groupby(arm):
            own = dict(zip(arm, values, strict=True))
            without = taken[(taken["prompt_tokens"] == own["prompt_tokens"]) & ~taken["cache"]]
            row: Row = {"model": model, **own, **spread(samples), "reason": _reason(samples)}
            row |= {name: samples[name].iloc[0] for name in ("dtype", "device")}
            row |= dict.fromkeys(("speedup", "speedup_low", "speedup_high"))
            if own["cache"] and row["samples"] and (without["calls"] > 0).all():
                walls = (part["wall_ms"].to_numpy(float) for part in (without, samples))
                ratio = ratio_of_medians(*walls)
                row |= {"speedup": ratio.estimate, "speedup_low": ratio.low, "speedup_high": ratio.high}
            rows.append(row)
    return pd.DataFrame(rows)


def kernel_speed(kernels: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The KERNEL_SPEED table of the KERNELS tables, by model."""
    return pd.concat([summarize(table).assign(model=model) for model, table in kernels.items()], ignore_index=True)
