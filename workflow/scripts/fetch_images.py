"""Bring an image set to a local file of tensors."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.sources.images import fetch_images
from inferometer.tensors import write_tensors

snakemake: Snakemake

with job(snakemake.log[0]):
    images = fetch_images(snakemake.wildcards.image_set, snakemake.params.entry)
    write_tensors(images, Path(snakemake.output[0]))
