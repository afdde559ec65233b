"""Draw how fast the float model answers a few prompts."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.profiling.figures import plot_baseline
from inferometer.profiling.tables import BASELINE
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_baseline(read_table(BASELINE, Path(snakemake.input[0])))
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
