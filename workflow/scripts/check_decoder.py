"""Measure whether the hand-written decoder is what it claims to be."""

from pathlib import Path

import torch
from snakemake.iocontainers import Snakemake

from inferometer.device import choose_device
from inferometer.fundamentals.checks import FIXED_LENGTHS, check
from inferometer.fundamentals.measured_decoder import new_decoder
from inferometer.fundamentals.tables import DECODER_CHECKS
from inferometer.jobs import job
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    device = choose_device(snakemake.params.device)
    torch.set_num_threads(1)  # threads would wait for each other longer than they help in a decoder so small
    decoder = new_decoder(context=max(FIXED_LENGTHS)).to(device.torch_device)
    write_table(DECODER_CHECKS, check(decoder, device), Path(snakemake.output[0]))
