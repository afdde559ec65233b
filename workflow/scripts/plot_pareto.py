"""Draw perplexity against bytes of all schemes, with the front that none beats."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.evaluation.figures import plot_pareto
from inferometer.evaluation.tables import SCHEMES
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    params = snakemake.params
    figure = plot_pareto(read_table(SCHEMES, Path(snakemake.input[0])), params.models, params.schemes)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
