"""Draw the largest values at the first token behind every layer."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.attention.figures import plot_residuals
from inferometer.attention.tables import RESIDUALS, SINKS
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    residuals = read_table(RESIDUALS, Path(snakemake.input.residuals))
    figure = plot_residuals(residuals, read_table(SINKS, Path(snakemake.input.sinks)), snakemake.wildcards.model)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
