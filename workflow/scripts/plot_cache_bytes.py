"""Draw the bytes of caches against the prompt, beside theory."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.kv_cache.figures import plot_bytes
from inferometer.kv_cache.tables import CACHE_LENGTHS, KV_CACHE
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    lengths = read_table(CACHE_LENGTHS, Path(snakemake.input.lengths))
    table = read_table(KV_CACHE, Path(snakemake.input.table))
    save(plot_bytes(lengths, table, snakemake.wildcards.model), Path(snakemake.output[0]), snakemake.params.dpi)
