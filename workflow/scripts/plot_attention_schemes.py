"""Draw what rounding does to sinks and entropies."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.attention.figures import plot_schemes
from inferometer.attention.tables import ATTENTION_SCHEMES
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_schemes(read_table(ATTENTION_SCHEMES, Path(snakemake.input[0])), snakemake.wildcards.model)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
