"""Bring a corpus to a local, verified table of texts."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.sources.corpora import fetch_corpus
from inferometer.sources.tables import CORPUS
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    texts = fetch_corpus(snakemake.wildcards.corpus, snakemake.params.entry)
    write_table(CORPUS, texts, Path(snakemake.output[0]))
