"""Draw how much inserted words surprise a model."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.generation.figures import plot_insertions
from inferometer.generation.tables import INSERTED
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_insertions(read_table(INSERTED, Path(snakemake.input[0])), snakemake.wildcards.model)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
