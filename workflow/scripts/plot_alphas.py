"""Draw the output error of every site against the strength of smoothing."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.smoothing.figures import plot_alphas
from inferometer.smoothing.tables import ALPHAS
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_alphas(read_table(ALPHAS, Path(snakemake.input[0])))
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
