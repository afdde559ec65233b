"""Draw latency by length of the prompt, beside the roofline."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.profiling.figures import plot_latency
from inferometer.profiling.tables import KNEES, PROFILE
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    profile = read_table(PROFILE, Path(snakemake.input.profile))
    knees = read_table(KNEES, Path(snakemake.input.knees))
    figure = plot_latency(profile, knees, snakemake.wildcards.model)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
