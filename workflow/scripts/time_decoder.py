"""Time the hand-written decoder as it writes, with its cache and without."""

from pathlib import Path

import torch
from snakemake.iocontainers import Snakemake

from inferometer.device import choose_device
from inferometer.fundamentals.latency import context_for, measure
from inferometer.fundamentals.measured_decoder import new_decoder
from inferometer.fundamentals.seeded import bytes_of
from inferometer.fundamentals.tables import DECODER_LATENCY
from inferometer.jobs import job
from inferometer.recording import write_run
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]) as stopwatch:
    settings = snakemake.params.settings
    device = choose_device(snakemake.params.device)
    torch.set_num_threads(1)  # threads would wait for each other longer than they help in a decoder so small
    with stopwatch.phase("load"):
        decoder = new_decoder(context_for(settings["tokens"])).to(device.torch_device)
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        table = measure(decoder, settings["tokens"], settings["repetitions"], device)
    write_run(
        Path(snakemake.output.run),
        step="time_decoder",
        model="hand-written decoder",
        scheme=None,
        tokens=int((table["calls"] * table["new_tokens"]).sum()),
        weights_bytes=bytes_of(decoder),
        dtype="float32",
        stopwatch=stopwatch,
        device=device,
    )
    write_table(DECODER_LATENCY, table, Path(snakemake.output.table))
