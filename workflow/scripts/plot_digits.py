"""Draw what fewer bits do to the digit classifier."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.fundamentals.figures import plot_digits
from inferometer.fundamentals.tables import DIGIT_ACCURACY
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_digits(read_table(DIGIT_ACCURACY, Path(snakemake.input[0])))
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
