"""Draw what rounding each layer alone does, as a heat map."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.evaluation.figures import plot_sensitivity
from inferometer.evaluation.tables import SENSITIVITY
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_sensitivity(read_table(SENSITIVITY, Path(snakemake.input[0])))
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
