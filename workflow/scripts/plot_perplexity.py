"""Draw every scheme's perplexity over that of the float model."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.evaluation.figures import plot_perplexity
from inferometer.evaluation.tables import PERPLEXITY
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_perplexity(read_table(PERPLEXITY, Path(snakemake.input[0])), snakemake.params.schemes)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
