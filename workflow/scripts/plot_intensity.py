"""Draw arithmetic intensity against context and batch, with the ridge points of GPUs and of this machine."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity.figures import plot_intensity
from inferometer.capacity.tables import INTENSITY, MACHINE, RIDGES
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    inputs, params = snakemake.input, snakemake.params
    figure = plot_intensity(
        read_table(INTENSITY, Path(inputs.intensity)),
        read_table(RIDGES, Path(inputs.ridges)),
        read_table(MACHINE, Path(inputs.machine)),
        params.model,
        params.gpus,
    )
    save(figure, Path(snakemake.output[0]), params.dpi)
