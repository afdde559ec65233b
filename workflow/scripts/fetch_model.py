"""Bring a model to a local, verified folder of safetensors with a manifest."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.files import whole_file
from inferometer.jobs import job
from inferometer.sources.checkpoints import fetch_checkpoint
from inferometer.sources.shared import prepare

snakemake: Snakemake


def make(manifest: Path, checkpoint: Path) -> None:
    """Write both outputs."""
    found = fetch_checkpoint(snakemake.wildcards.model, snakemake.params.entry, checkpoint)
    with whole_file(manifest) as partial:
        found.write(partial)


with job(snakemake.log[0]):
    entry, code = snakemake.params.entry, snakemake.params.code
    prepare(snakemake.wildcards.model, entry, snakemake.input, code, [*map(Path, snakemake.output)], make)
