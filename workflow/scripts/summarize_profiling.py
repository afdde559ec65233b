"""Gather raw times and bytes into medians, slopes and knees, beside what theory predicts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from snakemake.iocontainers import Snakemake

from inferometer.capacity.catalogue import shape_or_reason
from inferometer.capacity.roofline import roofs
from inferometer.capacity.tables import MACHINE
from inferometer.jobs import job
from inferometer.on_demand import OnDemand
from inferometer.profiling import summary, tables
from inferometer.tables import Table, read_table, write_csv, write_table

snakemake: Snakemake


def tables_of(table: Table, paths: Sequence[str], models: Sequence[str]) -> Mapping[str, pd.DataFrame]:
    """A table of every model."""
    files = dict(zip(models, paths, strict=True))
    return OnDemand(files, lambda model: read_table(table, Path(files[model])))


with job(snakemake.log[0]):
    params, inputs = snakemake.params, snakemake.input
    output = {name: Path(path) for name, path in snakemake.output.items()}
    limits = roofs(read_table(MACHINE, Path(inputs.machine)))
    shapes = {
        model: shape_or_reason(Path(folder), model)
        for model, folder in zip(params.models, inputs.checkpoints, strict=True)
    }
    theories = {
        model: summary.Theory(shape, params.layers[model], params.schemes, limits) for model, shape in shapes.items()
    }

    latency = tables_of(tables.LATENCY, inputs.latency, params.models)
    profile = summary.profile(latency, theories)
    write_table(tables.PROFILE, profile, output["profile"])
    write_csv(tables.PROFILE, output["profile"], output["profile_csv"])
    write_table(tables.KNEES, summary.knees(latency, profile), output["knees"])
    slopes = summary.slopes(tables_of(tables.MEMORY, inputs.memory, params.models), theories)
    write_table(tables.SLOPES, slopes, output["slopes"])
    write_csv(tables.SLOPES, output["slopes"], output["slopes_csv"])
    cache = tables_of(tables.CACHE, inputs.cache, params.measured)
    write_table(tables.CACHE_SPEED, summary.cache_speed(cache), output["cache"])
    kernels = tables_of(tables.KERNELS, inputs.kernels, params.measured)
    write_table(tables.KERNEL_SPEED, summary.kernel_speed(kernels), output["kernels"])
