"""Gather sinks by layer with intervals, their phases, and what rounding does to them."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.attention.summary import summarize_phases, summarize_rounded, summarize_sinks
from inferometer.attention.tables import ATTENTION_SCHEMES, HEADS, PHASES, ROUNDED, SINKS
from inferometer.jobs import job
from inferometer.on_demand import OnDemand
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    inputs, models, output = snakemake.input, snakemake.params.models, dict(snakemake.output.items())
    place = {model: number for number, model in enumerate(models)}
    heads = OnDemand(models, lambda model: read_table(HEADS, Path(inputs.heads[place[model]])))
    rounded = OnDemand(models, lambda model: read_table(ROUNDED, Path(inputs.rounded[place[model]])))
    for name, table, frame in (
        ("sinks", SINKS, summarize_sinks(heads)),
        ("phases", PHASES, summarize_phases(heads)),
        ("schemes", ATTENTION_SCHEMES, summarize_rounded(rounded, snakemake.params.reference)),
    ):
        write_table(table, frame, Path(output[name]))
        write_csv(table, Path(output[name]), Path(output[f"{name}_csv"]))
