"""Gather the dynamic ranges of every model's layers into one table."""

from pathlib import Path

import pandas as pd
from snakemake.iocontainers import Snakemake

from inferometer.calibration.summary import summarize_ranges
from inferometer.calibration.tables import ACTIVATIONS, RANGES, WEIGHTS
from inferometer.jobs import job
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    tables = zip(snakemake.params.models, snakemake.input.activations, snakemake.input.weights, strict=True)
    ranges = [
        summarize_ranges(model, read_table(ACTIVATIONS, Path(activations)), read_table(WEIGHTS, Path(weights)))
        for model, activations, weights in tables
    ]
    write_table(RANGES, pd.concat(ranges), Path(snakemake.output.table))
    write_csv(RANGES, Path(snakemake.output.table), Path(snakemake.output.csv))
