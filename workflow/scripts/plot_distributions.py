"""Draw the distributions of weights beside activations."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.calibration.figures import plot_distributions
from inferometer.calibration.tables import HISTOGRAMS
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_distributions(read_table(HISTOGRAMS, Path(snakemake.input[0])))
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
