"""Draw arithmetic intensity against context and batch, with the ridge points of GPUs and of this machine."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity.figures import plot_intensity
from inferometer.capacity.tables import INTENSITY, MACHINE, RIDGES
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    params = snakemake.params
    named = (("intensity", INTENSITY), ("ridges", RIDGES), ("machine", MACHINE))
    tables = (read_table(table, Path(snakemake.input[name])) for name, table in named)
    save(plot_intensity(*tables, params.model, params.gpus), Path(snakemake.output[0]), params.dpi)
