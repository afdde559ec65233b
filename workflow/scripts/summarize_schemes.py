"""Every model and scheme in one row, and its accuracy on each question set."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.evaluation.choices_summary import summarize_accuracy
from inferometer.evaluation.schemes_summary import Measured, summarize_schemes
from inferometer.evaluation.tables import ACCURACY, CHOICES, FIDELITY, LAYERS, PERPLEXITY, SCHEMES, STORAGE
from inferometer.jobs import job
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

TABLES = (FIDELITY, CHOICES, LAYERS, STORAGE)  # in the order of the rule's inputs

with job(snakemake.log[0]):
    files = iter(snakemake.input.cells)
    cells = {
        (model, scheme): Measured(*(read_table(table, Path(next(files))) for table in TABLES))
        for model, scheme in snakemake.params.cells
    }
    perplexity, reference = read_table(PERPLEXITY, Path(snakemake.input.perplexity)), snakemake.params.reference
    output = snakemake.output
    write_table(SCHEMES, summarize_schemes(cells, perplexity, reference), Path(output.table))
    choices = {cell: tables.choices for cell, tables in cells.items()}
    write_table(ACCURACY, summarize_accuracy(choices, reference), Path(output.accuracy))
    write_csv(SCHEMES, Path(output.table), Path(output.csv))
    write_csv(ACCURACY, Path(output.accuracy), Path(output.accuracy_csv))
