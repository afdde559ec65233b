"""Every model and scheme in one row, and its accuracy on each question set."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.evaluation.choices_summary import summarize_accuracy
from inferometer.evaluation.schemes_summary import Measured, summarize_schemes
from inferometer.evaluation.tables import ACCURACY, CHOICES, FIDELITY, LAYERS, PERPLEXITY, SCHEMES, STORAGE
from inferometer.jobs import job
from inferometer.on_demand import OnDemand
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

TABLES = (FIDELITY, CHOICES, LAYERS, STORAGE)  # in the order of the rule's inputs
SCORES = ("window", "kl_divergence", "same_top_token")  # a row for each token has more

with job(snakemake.log[0]):
    files = map(Path, snakemake.input.cells)
    paths = {tuple(cell): [next(files) for _ in TABLES] for cell in snakemake.params.cells}

    def measured(cell: tuple[str, ...]) -> Measured:
        """The tables of a model and scheme."""
        fidelity, *others = zip(TABLES, paths[cell], strict=True)
        return Measured(read_table(*fidelity, columns=SCORES), *(read_table(*other) for other in others))

    cells = OnDemand(paths, measured)
    perplexity, reference = read_table(PERPLEXITY, Path(snakemake.input.perplexity)), snakemake.params.reference
    output = snakemake.output
    write_table(SCHEMES, summarize_schemes(cells, perplexity, reference), Path(output.table))
    choices = OnDemand(paths, lambda cell: read_table(CHOICES, paths[cell][TABLES.index(CHOICES)]))
    write_table(ACCURACY, summarize_accuracy(choices, reference), Path(output.accuracy))
    write_csv(SCHEMES, Path(output.table), Path(output.csv))
    write_csv(ACCURACY, Path(output.accuracy), Path(output.accuracy_csv))
