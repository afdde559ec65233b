"""Bring an image set to a local file of tensors."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.sources.images import fetch_images
from inferometer.sources.shared import prepare
from inferometer.tensors import write_tensors

snakemake: Snakemake


def make(path: Path) -> None:
    """Write the output."""
    write_tensors(fetch_images(snakemake.wildcards.image_set, snakemake.params.entry), path)


with job(snakemake.log[0]):
    entry, code = snakemake.params.entry, snakemake.params.code
    prepare(snakemake.wildcards.image_set, entry, snakemake.input, code, [Path(snakemake.output[0])], make)
