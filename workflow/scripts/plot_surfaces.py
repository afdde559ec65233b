"""Draw magnitudes of weights or activations as 3D surfaces."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.calibration.figures import plot_surfaces
from inferometer.calibration.tables import SURFACES
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_surfaces(read_table(SURFACES, Path(snakemake.input[0])), snakemake.wildcards.tensor)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
