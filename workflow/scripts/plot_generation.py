"""Draw entropy and rarity along what a model wrote."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.generation.figures import plot_features
from inferometer.generation.tables import FEATURES, WRITTEN
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    features = read_table(FEATURES, Path(snakemake.input.features))
    figure = plot_features(features, read_table(WRITTEN, Path(snakemake.input.written)))
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
