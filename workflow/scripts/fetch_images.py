"""Bring an image set to a local file of tensors."""

from pathlib import Path

from safetensors.torch import save_file
from snakemake.iocontainers import Snakemake

from inferometer.files import whole_file
from inferometer.jobs import job
from inferometer.sources.images import fetch_images

snakemake: Snakemake

with job(snakemake.log[0]):
    images = fetch_images(snakemake.wildcards.image_set, snakemake.params.entry)
    with whole_file(Path(snakemake.output[0])) as partial:
        save_file(images, partial)
