"""Gather what temperatures do to the models' texts, with intervals over prompts."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.generation.diversity import summarize_diversity
from inferometer.generation.tables import DIVERSITY, TEMPERATURES
from inferometer.jobs import job
from inferometer.on_demand import OnDemand
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    inputs, models = snakemake.input, snakemake.params.models
    table, csv = (Path(path) for path in snakemake.output)
    paths = dict(zip(models, inputs, strict=True))
    tables = OnDemand(paths, lambda model: read_table(DIVERSITY, Path(paths[model])))
    write_table(TEMPERATURES, summarize_diversity(tables), table)
    write_csv(TEMPERATURES, table, csv)
