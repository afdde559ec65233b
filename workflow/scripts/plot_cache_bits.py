"""Draw the bits that the tokens of a text got from each policy that chooses them."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.kv_cache.figures import plot_bits
from inferometer.kv_cache.tables import CACHE_TRACE
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    params = snakemake.params
    traces = {
        policy: read_table(CACHE_TRACE, Path(path))
        for (_, policy), path in zip(params.cells, snakemake.input.trace, strict=True)
    }
    save(plot_bits(traces, params.policies), Path(snakemake.output[0]), params.dpi)
