"""Draw diversity, repetition and perplexity of what was written against temperature."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.generation.figures import plot_diversity
from inferometer.generation.tables import TEMPERATURES
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    table = read_table(TEMPERATURES, Path(snakemake.input[0]))
    save(plot_diversity(table, snakemake.wildcards.model), Path(snakemake.output[0]), snakemake.params.dpi)
