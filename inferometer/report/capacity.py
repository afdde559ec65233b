"""What the page shows of the capacity chapter, gathered from its tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.capacity.chapter import GRIDS
from inferometer.capacity.roofline import machine_ridges
from inferometer.capacity.tables import (
    INTENSITY,
    MACHINE,
    PARAMETERS,
    REQUESTS,
    RIDGES,
    STORED,
    STUDIES,
    WEIGHTS,
)
from inferometer.report.page import Figure
from inferometer.report.reading import read_of_chapter, read_table
from inferometer.tables import records


@dataclass(frozen=True)
class Model:
    """One model: parameters, bytes by grid, bytes of its cache, and its row of REQUESTS for each number of GPUs."""

    name: str
    parameters: int
    active_parameters: int
    weights_bytes: Mapping[str, int]
    kv_bytes_per_token: int
    kv_bytes_per_request: int
    batches: list[dict[str, Any]]


@dataclass(frozen=True)
class Capacity:
    """All that the section shows; `gpu` and `context_tokens` are those of the batches."""

    gpu: str
    context_tokens: int
    gpu_counts: list[int]
    grids: list[str]
    kv_bits: int
    dtype: str
    model: str
    models: list[Model]
    studies: list[dict[str, Any]]
    stored: pd.DataFrame
    gpus: list[dict[str, Any]]
    machine: dict[str, Any]
    machine_ridges: pd.DataFrame
    intensity: pd.DataFrame
    ridges: pd.DataFrame
    figures: list[Figure]
    intensity_figure: Figure


def _figures(folder: Path, model: str, gpu: str) -> list[Figure]:
    return [
        Figure(
            folder / "cache.svg",
            f"Memory of one request's KV cache: of {model} by bits of its values (below 16 with a 16-bit scale for "
            "each key and value of a head), and of all models in the most bits. Where attention has a window the cache "
            "stops growing.",
            "Line charts of the bytes of a request's cache against its context, by bits and by model.",
        ),
        Figure(
            folder / "batches.svg",
            f"The largest batch of {model}: on one GPU of each kind, with caches of fewer bits, and on several {gpu}. "
            "GPUs with the same memory share a line, and a point is missing where not one request fits.",
            "Line charts of the largest batch against context and against the number of GPUs.",
        ),
    ]


def _models(config: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], context: int, bits: int) -> list[Model]:
    """The shipped models in the order of the configuration, then those of the study."""
    gpu = config["capacity"]["gpus"][0]
    parameters = tables["parameters"].groupby("model")[["parameters", "active_parameters"]].sum()
    weights = {name: rows.set_index("grid")["weights_bytes"] for name, rows in tables["weights"].groupby("model")}
    requests = tables["requests"]
    shown = requests[
        (requests["gpu"] == gpu)
        & (requests["parallel"] == "tensor")
        & (requests["context_tokens"] == context)
        & (requests["kv_bits"] == bits)
    ].sort_values("gpus")
    names = dict.fromkeys([*config["capacity"]["models"], *config["study"]["models"]])
    found = []
    for name in (name for name in names if name in parameters.index):
        rows = records(shown[shown["model"] == name])
        found.append(
            Model(
                name=name,
                parameters=int(parameters["parameters"][name]),
                active_parameters=int(parameters["active_parameters"][name]),
                weights_bytes={str(grid): int(size) for grid, size in weights[name].items()},
                kv_bytes_per_token=rows[0]["kv_bytes_per_token"],
                kv_bytes_per_request=rows[0]["kv_bytes_per_request"],
                batches=rows,
            )
        )
    return found


def capacity(config: Mapping[str, Any], results: Path) -> Capacity:
    """The section's content, from the chapter's folder of `results` and the table of this machine."""
    settings, folder = config["capacity"], results / "capacity"
    named = {"parameters": PARAMETERS, "weights": WEIGHTS, "requests": REQUESTS}
    tables = {name: read_table(table, folder / f"{name}.parquet") for name, table in named.items()}
    contexts, model, gpu = sorted(settings["context_tokens"]), settings["models"][0], settings["gpus"][0]
    context, bits = contexts[len(contexts) // 2], max(settings["kv_bits"])
    ridges = read_table(RIDGES, folder / "ridges.parquet")
    machine = read_table(MACHINE, results / "machine.parquet")
    listed = [
        {**records(rows)[0], "peaks": {row["dtype"]: row for row in records(rows)}}
        for _, rows in ridges[ridges["gpu"].isin(settings["gpus"])].groupby("gpu")
    ]
    return Capacity(
        gpu=gpu,
        context_tokens=context,
        gpu_counts=sorted(settings["gpu_counts"]),
        grids=[grid for grid in GRIDS if grid in set(tables["weights"]["grid"])],
        kv_bits=bits,
        dtype=settings["dtype"],
        model=model,
        models=_models(config, tables, context, bits),
        studies=records(read_table(STUDIES, folder / "studies.parquet")),
        stored=read_of_chapter(config, "evaluation", STORED, folder / "stored.parquet"),
        gpus=listed,
        machine=records(machine)[0],
        machine_ridges=machine_ridges(machine),
        intensity=read_table(INTENSITY, folder / "intensity.parquet"),
        ridges=ridges,
        figures=_figures(folder, model, gpu),
        intensity_figure=Figure(
            folder / "intensity.svg",
            f"Operations per byte of {model}'s attention, as two studies count it for one head, as the model has it, "
            "and of a whole layer. The grey band holds the ridge points of the GPUs, the dashed lines those of this "
            "machine: what lies below waits for memory, what lies above for arithmetic.",
            "Line charts of arithmetic intensity against context and batch, and a chart of ridge points.",
        ),
    )
