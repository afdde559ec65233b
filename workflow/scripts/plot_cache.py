"""Draw the bytes of a request's cache against its context."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity.figures import plot_cache
from inferometer.capacity.tables import REQUESTS
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_cache(read_table(REQUESTS, Path(snakemake.input[0])), snakemake.params.model)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
