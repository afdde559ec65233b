"""Draw memory by written tokens, beside what the configuration predicts."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.profiling.figures import plot_memory
from inferometer.profiling.tables import MEMORY, SLOPES
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    memory = read_table(MEMORY, Path(snakemake.input.memory))
    slopes = read_table(SLOPES, Path(snakemake.input.slopes))
    figure = plot_memory(memory, slopes, snakemake.wildcards.model)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
