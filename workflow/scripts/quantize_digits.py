"""Train small networks to read digits, and round their layers to fewer and fewer bits."""

from pathlib import Path

import torch
from snakemake.iocontainers import Snakemake

from inferometer.device import choose_device
from inferometer.fundamentals.digits import measure, new_network, read_digits
from inferometer.fundamentals.seeded import bytes_of
from inferometer.fundamentals.tables import DIGITS
from inferometer.jobs import job
from inferometer.recording import write_run
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]) as stopwatch:
    settings = snakemake.params.settings
    device = choose_device(snakemake.params.device)
    torch.set_num_threads(1)  # threads would wait for each other longer than they help in layers so small
    with stopwatch.phase("load"):
        digits = read_digits(Path(snakemake.input[0]))
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        table = measure(digits, settings["epochs"], settings["seeds"], settings["bits"], device)
    write_run(
        Path(snakemake.output.run),
        step="quantize_digits",
        model="digit classifier",
        scheme=None,
        tokens=len(table),
        weights_bytes=bytes_of(new_network(digits.inputs(digits.test_images).shape[1])),
        dtype="float32",
        stopwatch=stopwatch,
        device=device,
    )
    write_table(DIGITS, table, Path(snakemake.output.table))
