"""The chapter's predictions as tables, and beside them what the study's own models were measured to store."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pandas as pd

from inferometer.capacity.catalogue import gpu, gpu_names
from inferometer.capacity.conventions import comparisons
from inferometer.capacity.fit import Deployment, demand
from inferometer.capacity.intensity import CONVENTIONS, Attention, Work, flash, layer_work, model_attention
from inferometer.capacity.shapes import Shape
from inferometer.capacity.storage import kv_bytes_per_request, kv_bytes_per_token, weight_bytes
from inferometer.capacity.tables import INTENSITY, REQUESTS, STORED
from inferometer.errors import InferometerError
from inferometer.units import GIB

GRIDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "float": {},
        "8 bits, per channel": {"weights": {"bits": 8, "granularity": "per_channel"}},
        "4 bits, groups of 64": {
            "weights": {"bits": 4, "granularity": "per_group", "group_size": 64, "symmetric": False}
        },
    }
)
FLOAT_KV_BITS = 16
Shapes = Mapping[str, Shape]
Settings = Mapping[str, Any]


def parameters(shapes: Shapes) -> pd.DataFrame:
    """The PARAMETERS table."""
    rows = []
    for model, shape in shapes.items():
        for group in dict.fromkeys(part.group for part in shape.parts):
            parts = tuple(part for part in shape.parts if part.group == group)
            own = dataclasses.replace(shape, parts=parts)
            rows.append(
                {
                    "model": model,
                    "part": group,
                    "parameters": own.parameters,
                    "active_parameters": own.active_parameters,
                }
            )
    return pd.DataFrame(rows)


def weights(shapes: Shapes, dtype: str) -> pd.DataFrame:
    """The WEIGHTS table; a grid whose groups do not divide a model's widths has no row."""
    rows = []
    for model, shape in shapes.items():
        for grid, scheme in GRIDS.items():
            try:
                size = weight_bytes(shape, dtype, scheme)
            except InferometerError:
                continue
            own = {"model": model, "grid": grid, "weights_bytes": size.total_bytes}
            rows.append({**own, **dataclasses.asdict(size)})
    return pd.DataFrame(rows)


def _deployments(settings: Settings) -> Iterator[tuple[str, int, Deployment]]:
    """Every way in which GPUs serve a model, by what they share and how many they are."""
    ways = [(count, parallel) for count in settings["gpu_counts"] for parallel in ("tensor", "pipeline")]
    for count, parallel in ways:
        if count == 1 and parallel == "pipeline":
            continue
        for context in settings["context_tokens"]:
            for bits in settings["kv_bits"]:
                yield (
                    parallel,
                    count,
                    Deployment(
                        context_tokens=context,
                        tensor_parallel=count if parallel == "tensor" else 1,
                        pipeline_parallel=count if parallel == "pipeline" else 1,
                        dtype=settings["dtype"],
                        kv_bits=bits,
                        overhead_bytes=round(settings["overhead_gib"] * GIB),
                        reserve_share=settings["reserve"],
                        workspace_tokens=settings["workspace_tokens"],
                    ),
                )


def _requests(shape: Shape, memory_bytes: Mapping[str, int], plan: Deployment) -> Iterator[dict[str, object]]:
    """What is known of one deployment on GPUs with so much memory each."""
    row: dict[str, object] = {
        "context_tokens": plan.context_tokens,
        "kv_bits": plan.kv_bits,
        "kv_bytes_per_token": kv_bytes_per_token(shape, plan.kv_bits),
        "kv_bytes_per_request": kv_bytes_per_request(shape, plan.context_tokens, plan.kv_bits),
    }
    try:
        asked = demand(shape, plan)
    except InferometerError as error:
        yield from ({**row, "gpu": name, "refused": str(error)} for name in memory_bytes)
        return
    for name, memory in memory_bytes.items():
        found = asked.on(memory)
        yield {
            **row,
            "gpu": name,
            "weights_bytes_per_gpu": found.weights_bytes_per_gpu,
            "kv_bytes_per_request_per_gpu": found.kv_bytes_per_request_per_gpu,
            "workspace_bytes_per_gpu": found.workspace_bytes_per_gpu,
            "largest_batch": found.largest_batch,
            "shortfall_gib": found.shortfall_bytes / GIB,
            "replicated": ", ".join(found.replicated) or None,
        }


def requests(shapes: Shapes, settings: Settings) -> pd.DataFrame:
    """The REQUESTS table."""
    memory_bytes = {name: gpu(name).memory_bytes for name in settings["gpus"]}
    rows = [
        {"model": model, "parallel": parallel, "gpus": count, **row}
        for parallel, count, plan in _deployments(settings)
        for model, shape in shapes.items()
        for row in _requests(shape, memory_bytes, plan)
    ]
    numbers = [column.name for column in REQUESTS.columns if column.type == "int64"]
    names = [column.name for column in REQUESTS.columns]
    return pd.DataFrame(rows, columns=names).astype(dict.fromkeys(numbers, "Int64"))


def _kinds(shape: Shape, context: int, queries: int, batch: int, kv_bits: list[int]) -> Iterator[tuple[str, int, Work]]:
    """Every way to count the work of attention, with the bits of its cache."""
    for name, convention in CONVENTIONS.items():
        yield name, FLOAT_KV_BITS, convention.attention(context, queries, shape.head_dim, batch).work
    standard: Attention = model_attention(shape, context, queries, batch)
    yield "standard", FLOAT_KV_BITS, standard.work
    for bits in kv_bits:
        blocked = flash(model_attention(shape, context, queries, batch, bits))
        yield "flash", bits, blocked.work
        yield "layer", bits, layer_work(blocked, shape)


def intensity(shapes: Shapes, settings: Settings) -> pd.DataFrame:
    """The INTENSITY table. In prefill keys and values are fresh from the projections, so they have 16 bits."""
    rows = []
    for model, shape in shapes.items():
        for context in settings["intensity"]["context_tokens"]:
            for batch in settings["intensity"]["batches"]:
                for phase, queries, bits in (("prefill", context, [FLOAT_KV_BITS]), ("decode", 1, settings["kv_bits"])):
                    rows += [
                        (model, kind, phase, context, batch, own, work.flops, work.bytes, work.intensity)
                        for kind, own, work in _kinds(shape, context, queries, batch, bits)
                    ]
    return pd.DataFrame(rows, columns=[column.name for column in INTENSITY.columns]).astype(
        {"flops": "float64", "bytes": "float64"}
    )


def ridges() -> pd.DataFrame:
    """The RIDGES table, of the whole catalogue."""
    return pd.DataFrame(
        [
            {
                "gpu": name,
                "dtype": dtype,
                "name": device.name,
                "source": device.source,
                "memory_gib": float(device.memory_gib),
                "bandwidth_gb_per_s": device.bandwidth_bytes_per_s / 1e9,
                "peak_tera_per_s": peak / 1e12,
                "ridge": device.ridge(dtype),
            }
            for name, device in ((name, gpu(name)) for name in gpu_names())
            for dtype, peak in device.peak_per_s.items()
        ]
    )


def studies() -> pd.DataFrame:
    """The STUDIES table."""
    rows = pd.DataFrame([dataclasses.asdict(row) for row in comparisons()])
    return rows.astype({"reproduced": "float64", "exact": "float64"}).reset_index(names="place")


@dataclass(frozen=True)
class Measured:
    """What a scheme of a model was measured to store, or why it was skipped."""

    weights_bytes: int
    skipped: str | None


def _stored(shape: Shape | str, dtype: str, scheme: Mapping[str, Any], measured: Measured) -> dict[str, object]:
    predicted, reasons = None, [measured.skipped] if measured.skipped else []
    if isinstance(shape, str):
        reasons.append(shape)
    else:
        try:
            predicted = weight_bytes(shape, dtype, scheme).total_bytes
        except InferometerError as error:
            reasons.append(str(error))
    actual = None if measured.skipped else measured.weights_bytes
    difference = None if actual is None or predicted is None else actual - predicted
    return {
        "predicted_bytes": predicted,
        "measured_bytes": actual,
        "difference_bytes": difference,
        "reason": "; ".join(reasons) or None,
    }


def stored(
    shapes: Mapping[str, Shape | str],
    dtypes: Mapping[str, str],
    schemes: Mapping[str, Mapping[str, Any]],
    measured: Mapping[tuple[str, str], Measured],
) -> pd.DataFrame:
    """The STORED table: a row for each model and scheme that was measured.

    `shapes` holds a reason instead of a shape where a model's configuration is of no known family.
    """
    rows = [
        {"model": model, "scheme": scheme, **_stored(shapes[model], dtypes[model], schemes[scheme], found)}
        for (model, scheme), found in measured.items()
    ]
    numbers = [column.name for column in STORED.columns if column.type == "int64"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, "Int64"))
