"""Gather every scheme's raw windows into perplexities with paired intervals."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.evaluation.summary import summarize_perplexity
from inferometer.evaluation.tables import PERPLEXITY, WINDOWS
from inferometer.jobs import job
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    tables = zip(snakemake.params.cells, snakemake.input, strict=True)
    windows = {(model, scheme): read_table(WINDOWS, Path(path)) for (model, scheme), path in tables}
    summary = summarize_perplexity(windows, snakemake.params.reference)
    write_table(PERPLEXITY, summary, Path(snakemake.output.table))
    write_csv(PERPLEXITY, Path(snakemake.output.table), Path(snakemake.output.csv))
