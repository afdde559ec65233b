"""Gather the records of all measuring jobs."""

from pathlib import Path

import pandas as pd
from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.runs import RUN
from inferometer.tables import read_table, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    runs = [read_table(RUN, Path(path)) for path in snakemake.input] or [RUN.arrow_schema.empty_table().to_pandas()]
    write_table(RUN, pd.concat(runs), Path(snakemake.output[0]))
