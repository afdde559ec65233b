"""Draw the rule graph of the study."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.provenance.figures import plot_rules
from inferometer.provenance.tables import RULES
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    figure = plot_rules(read_table(RULES, Path(snakemake.input[0])))
    save(figure, Path(snakemake.output[0]), snakemake.params.dpi)
