"""Bring an image set to a local file of tensors."""

from pathlib import Path

from safetensors.torch import save_file
from snakemake.iocontainers import Snakemake

from inferometer.files import whole_file
from inferometer.jobs import job
from inferometer.sources.images import fetch_images
from inferometer.sources.shared import prepare

snakemake: Snakemake


def make(path: Path) -> None:
    """Write the output."""
    with whole_file(path) as partial:
        save_file(fetch_images(snakemake.wildcards.image_set, snakemake.params.entry), partial)


with job(snakemake.log[0]):
    entry, code = snakemake.params.entry, snakemake.params.code
    prepare(snakemake.wildcards.image_set, entry, snakemake.input, code, [Path(snakemake.output[0])], make)
