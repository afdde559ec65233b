"""Bring a question set to a local, verified table of questions and their endings."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.sources.questions import fetch_questions
from inferometer.sources.tables import QUESTIONS
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    questions = fetch_questions(snakemake.wildcards.question_set, snakemake.params.entry)
    write_table(QUESTIONS, questions, Path(snakemake.output[0]))
