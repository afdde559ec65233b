"""Draw the attention maps of one input."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.attention.figures import plot_maps
from inferometer.attention.tables import MAPS
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    text = snakemake.wildcards.text
    maps = read_table(MAPS, Path(snakemake.input[0]), where={"input": text})
    figure = plot_maps(maps, text, snakemake.params.lengths)
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
