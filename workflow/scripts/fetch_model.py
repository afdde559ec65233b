"""Bring a model to a local, verified folder of safetensors with a manifest."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.files import whole_file
from inferometer.jobs import job
from inferometer.sources.checkpoints import fetch_checkpoint

snakemake: Snakemake

with job(snakemake.log[0]):
    manifest = fetch_checkpoint(snakemake.wildcards.model, snakemake.params.entry, Path(snakemake.output.checkpoint))
    with whole_file(Path(snakemake.output.manifest)) as partial:
        manifest.write(partial)
