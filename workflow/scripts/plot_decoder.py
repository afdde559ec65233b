"""Draw the hand-written decoder's latency with and without its cache."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.fundamentals.figures import plot_decoder
from inferometer.fundamentals.tables import DECODER_SPEED
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_decoder(read_table(DECODER_SPEED, Path(snakemake.input[0])))
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
