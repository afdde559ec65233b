"""Draw what caches on few bits cost against the bits that they store."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.kv_cache.figures import plot_accuracy
from inferometer.kv_cache.tables import CACHE_PAIRS, KV_CACHE
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    table = read_table(KV_CACHE, Path(snakemake.input.table))
    pairs = read_table(CACHE_PAIRS, Path(snakemake.input.pairs))
    save(plot_accuracy(table, pairs, snakemake.wildcards.model), Path(snakemake.output[0]), snakemake.params.dpi)
