"""Round one layer of a model at a time, and measure what each does to its predictions."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, snakemake.params.dtype)

from pathlib import Path

import pandas as pd

from inferometer.device import choose_device
from inferometer.evaluation.sensitivity import sensitivities
from inferometer.evaluation.tables import SENSITIVITY
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model, weights_bytes
from inferometer.recording import write_run
from inferometer.schemes import Scheme
from inferometer.tables import write_table
from inferometer.text import corpus_windows

with job(snakemake.log[0]) as stopwatch:
    checkpoint = Path(snakemake.input.checkpoint)
    scheme = Scheme.of(snakemake.wildcards.scheme, snakemake.params.scheme)
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        manifest = Manifest.read(Path(snakemake.input.manifest))
        settings = {**snakemake.params.settings, "max_windows": 1}
        corpus = Path(snakemake.input.corpus)
        [tokens] = corpus_windows(manifest, checkpoint, corpus, settings, "evaluation.sensitivity")
        model = load_model(manifest, checkpoint, device, snakemake.params.dtype)
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        rows = list(sensitivities(model, scheme, tokens))
    write_run(
        Path(snakemake.output.run),
        step="measure_sensitivity",
        model=manifest.name,
        scheme=scheme.name,
        tokens=len(rows) * tokens.numel(),
        weights_bytes=weights_bytes(model),
        dtype=str(model.dtype).removeprefix("torch."),
        stopwatch=stopwatch,
        device=device,
    )
    write_table(SENSITIVITY, pd.DataFrame(rows), Path(snakemake.output.sensitivity))
