"""Perplexity by what a cache keeps and by stretches of the text, with intervals."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.attention.eviction_summary import summarize_eviction
from inferometer.attention.eviction_tables import EVICTED, EVICTION
from inferometer.jobs import job
from inferometer.on_demand import OnDemand
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    models, output = snakemake.params.models, {name: Path(path) for name, path in snakemake.output.items()}
    paths = dict(zip(models, snakemake.input, strict=True))
    tables = OnDemand(paths, lambda model: read_table(EVICTION, Path(paths[model])))
    write_table(EVICTED, summarize_eviction(tables), output["evicted"])
    write_csv(EVICTED, output["evicted"], output["evicted_csv"])
