"""Draw attention sinks by what the texts begin with."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.attention.figures import plot_first_tokens
from inferometer.attention.tables import SINKS
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_first_tokens(read_table(SINKS, Path(snakemake.input[0])), snakemake.wildcards.model)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
