"""Bring a question set to a local, verified table of questions and their endings."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.sources.questions import fetch_questions
from inferometer.sources.shared import prepare
from inferometer.sources.tables import QUESTIONS
from inferometer.tables import write_table

snakemake: Snakemake


def make(path: Path) -> None:
    """Write the output."""
    write_table(QUESTIONS, fetch_questions(snakemake.wildcards.question_set, snakemake.params.entry), path)


with job(snakemake.log[0]):
    entry, code = snakemake.params.entry, snakemake.params.code
    prepare(snakemake.wildcards.question_set, entry, snakemake.input, code, [Path(snakemake.output[0])], make)
