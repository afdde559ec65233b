"""Measure how fast this machine multiplies, reads and copies."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity.machine import measure
from inferometer.capacity.roofline import summarize_machine
from inferometer.capacity.tables import MACHINE, MACHINE_SAMPLES
from inferometer.device import choose_device, describe_machine
from inferometer.jobs import job
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    device, output = choose_device(snakemake.params.device), snakemake.output
    samples = measure(device)
    write_table(MACHINE_SAMPLES, samples, Path(output.samples))
    write_table(MACHINE, summarize_machine(samples, describe_machine(device)), Path(output.machine))
