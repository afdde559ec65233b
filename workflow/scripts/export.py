"""Write a model under one scheme as a checkpoint of safetensors that transformers loads."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.device import choose_device
from inferometer.export.checkpoint import export
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model
from inferometer.preparation import preparation_of
from inferometer.schemes import Scheme
from inferometer.text import corpus_windows

snakemake: Snakemake

with job(snakemake.log[0]) as stopwatch:
    inputs, checkpoint = snakemake.input, Path(snakemake.input.checkpoint)
    scheme = Scheme.of(snakemake.wildcards.scheme, snakemake.params.scheme)
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        manifest = Manifest.read(Path(inputs.manifest))
        calibration = snakemake.params.rounding and corpus_windows(
            manifest, checkpoint, Path(inputs.calibration_corpus), snakemake.params.rounding, "calibration"
        )
        model = load_model(manifest, checkpoint, device, snakemake.params.dtype)
    with stopwatch.phase("compute"):
        preparation = preparation_of(model, scheme, inputs, calibration or [])
        files = [checkpoint / file.name for file in manifest.files]
        export(model, scheme, preparation, files, Path(snakemake.output[0]))
