"""Draw the share of attention on the first two tokens by layer and head."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.attention.figures import plot_heads
from inferometer.attention.tables import HEADS
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_heads(read_table(HEADS, Path(snakemake.input[0])))
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
