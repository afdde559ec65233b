"""Draw what caches on few bits cost against the bits that they store."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.kv_cache.figures import plot_accuracy
from inferometer.kv_cache.tables import KV_CACHE
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_accuracy(read_table(KV_CACHE, Path(snakemake.input.table)), snakemake.wildcards.model)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
