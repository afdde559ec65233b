"""Compare the samples of each prompt with each other."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.generation.diversity import diversity
from inferometer.generation.tables import DIVERSITY, SAMPLES
from inferometer.jobs import job
from inferometer.tables import read_table, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    samples = read_table(SAMPLES, Path(snakemake.input[0]))
    write_table(DIVERSITY, diversity(samples), Path(snakemake.output[0]))
