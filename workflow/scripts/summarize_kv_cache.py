"""Gather what caches on few bits score, take and cost: a row for each policy, for each length, and for each pair."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.kv_cache import summary, tables
from inferometer.on_demand import OnDemand
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

PARTS = {
    "perplexity": tables.CACHE_PERPLEXITY,
    "choices": tables.CACHE_CHOICES,
    "latency": tables.CACHE_LATENCY,
    "memory": tables.CACHE_MEMORY,
}

with job(snakemake.log[0]):
    params, inputs, output = snakemake.params, snakemake.input, snakemake.output
    places = {(model, policy): place for place, (model, policy) in enumerate(params.cells)}
    cells = OnDemand(
        places,
        lambda cell: summary.Measured(
            **{part: read_table(table, Path(inputs[part][places[cell]])) for part, table in PARTS.items()}
        ),
    )
    lengths = summary.lengths(cells)
    write_table(tables.CACHE_LENGTHS, lengths, Path(output.lengths))
    write_table(tables.KV_CACHE, summary.summarize(cells, lengths, params.policies), Path(output.table))
    write_csv(tables.KV_CACHE, Path(output.table), Path(output.csv))
    write_table(tables.CACHE_PAIRS, summary.pairs(cells, params.policies), Path(output.pairs))
    write_csv(tables.CACHE_PAIRS, Path(output.pairs), Path(output.pairs_csv))
