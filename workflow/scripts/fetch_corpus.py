"""Bring a corpus to a local, verified table of texts."""

from pathlib import Path

import datasets  # type: ignore[import-untyped]
from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.sources.corpora import fetch_corpus
from inferometer.sources.tables import CORPUS
from inferometer.tables import write_table

snakemake: Snakemake

datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would tell a server of every local file that it reads

with job(snakemake.log[0]):
    texts = fetch_corpus(snakemake.wildcards.corpus, snakemake.params.entry)
    write_table(CORPUS, texts, Path(snakemake.output[0]))
