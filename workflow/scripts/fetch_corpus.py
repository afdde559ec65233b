"""Bring a corpus to a local, verified table of texts."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.sources.corpora import fetch_corpus
from inferometer.sources.shared import prepare
from inferometer.sources.tables import CORPUS
from inferometer.tables import write_table

snakemake: Snakemake


def make(path: Path) -> None:
    """Write the output."""
    write_table(CORPUS, fetch_corpus(snakemake.wildcards.corpus, snakemake.params.entry), path)


with job(snakemake.log[0]):
    entry, code = snakemake.params.entry, snakemake.params.code
    prepare(snakemake.wildcards.corpus, entry, snakemake.input, code, [Path(snakemake.output[0])], make)
