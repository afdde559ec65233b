"""Draw the share of attention on the first two tokens by layer."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.attention.figures import plot_sinks
from inferometer.attention.tables import PHASES, SINKS
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    sinks = read_table(SINKS, Path(snakemake.input.sinks))
    figure = plot_sinks(sinks, read_table(PHASES, Path(snakemake.input.phases)), snakemake.wildcards.model)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
