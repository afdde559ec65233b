"""Draw latency with the KV cache and without."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.profiling.figures import plot_cache_speed
from inferometer.profiling.tables import CACHE_SPEED
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_cache_speed(read_table(CACHE_SPEED, Path(snakemake.input[0])), snakemake.wildcards.model)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
