"""Draw how many requests fit, against context, bits of the cache and GPUs."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity.figures import plot_batches
from inferometer.capacity.tables import REQUESTS
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_batches(read_table(REQUESTS, Path(snakemake.input[0])), snakemake.params.model, snakemake.params.gpu)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
