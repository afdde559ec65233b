"""Gather the raw rows of both experiments into accuracies with intervals and latencies with quartiles."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.fundamentals.summary import summarize_digits, summarize_latency
from inferometer.fundamentals.tables import DECODER_LATENCY, DECODER_SPEED, DIGIT_ACCURACY, DIGITS
from inferometer.jobs import job
from inferometer.tables import read_table, write_csv, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    output = {name: Path(path) for name, path in snakemake.output.items()}
    digits = read_table(DIGITS, Path(snakemake.input.digits))
    write_table(DIGIT_ACCURACY, summarize_digits(digits), output["digits"])
    write_csv(DIGIT_ACCURACY, output["digits"], output["digits_csv"])
    latency = read_table(DECODER_LATENCY, Path(snakemake.input.latency))
    write_table(DECODER_SPEED, summarize_latency(latency), output["decoder"])
    write_csv(DECODER_SPEED, output["decoder"], output["decoder_csv"])
