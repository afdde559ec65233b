"""Draw time and memory of attention kernels by length."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.profiling.kernels_figure import plot_kernels
from inferometer.profiling.tables import KERNEL_SPEED
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    speed = read_table(KERNEL_SPEED, Path(snakemake.input[0]))
    figure = plot_kernels(speed[speed["model"] == snakemake.wildcards.model])
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
