"""Gather features by stretches of 64 tokens, and what inserted words are to the models, with intervals."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.generation.summary import summarize_features, summarize_insertions
from inferometer.generation.tables import FEATURES, INSERTED, INSERTIONS, LOGGED
from inferometer.jobs import job
from inferometer.on_demand import OnDemand
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    inputs, models = snakemake.input, snakemake.params.models
    output = {name: Path(path) for name, path in snakemake.output.items()}
    place = {model: number for number, model in enumerate(models)}
    features = OnDemand(models, lambda model: read_table(FEATURES, Path(inputs.features[place[model]])))
    write_table(LOGGED, summarize_features(features), output["logged"])
    write_csv(LOGGED, output["logged"], output["logged_csv"])
    insertions = OnDemand(models, lambda model: read_table(INSERTIONS, Path(inputs.insertions[place[model]])))
    write_table(INSERTED, summarize_insertions(insertions), output["inserted"])
    write_csv(INSERTED, output["inserted"], output["inserted_csv"])
