"""Measure how fast this machine multiplies and copies."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity.machine import measure
from inferometer.capacity.tables import MACHINE
from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    write_table(MACHINE, measure(choose_device(snakemake.params.device)), Path(snakemake.output[0]))
