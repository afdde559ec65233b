"""Draw perplexity against position, by what the cache keeps."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.attention.eviction_figures import plot_eviction
from inferometer.attention.eviction_tables import EVICTED, EVICTION
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    inputs = snakemake.input
    evicted, raw = read_table(EVICTED, Path(inputs.evicted)), read_table(EVICTION, Path(inputs.eviction))
    save(plot_eviction(evicted, raw, snakemake.wildcards.model), Path(snakemake.output[0]), snakemake.params.dpi)
