"""Gather every scheme's raw windows into perplexities with paired intervals."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.evaluation.summary import summarize_gains, summarize_perplexity
from inferometer.evaluation.tables import GAINS, PERPLEXITY, WINDOWS
from inferometer.jobs import job
from inferometer.on_demand import OnDemand
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    paths = dict(zip(map(tuple, snakemake.params.cells), snakemake.input, strict=True))
    windows = OnDemand(paths, lambda cell: read_table(WINDOWS, Path(paths[cell])))
    reference, bases = snakemake.params.reference, snakemake.params.bases
    write_table(PERPLEXITY, summarize_perplexity(windows, reference), Path(snakemake.output.table))
    write_csv(PERPLEXITY, Path(snakemake.output.table), Path(snakemake.output.csv))
    write_table(GAINS, summarize_gains(windows, bases, reference), Path(snakemake.output.gains))
    write_csv(GAINS, Path(snakemake.output.gains), Path(snakemake.output.gains_csv))
