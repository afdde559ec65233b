"""Draw measured cells under the machine's roofs."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity.tables import MACHINE
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.profiling.figures import plot_roofline
from inferometer.profiling.tables import PROFILE
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    profile = read_table(PROFILE, Path(snakemake.input.profile))
    figure = plot_roofline(profile, read_table(MACHINE, Path(snakemake.input.machine)))
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
