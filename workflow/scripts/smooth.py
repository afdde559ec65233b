"""Find a model's smoothing sites and factors, and prove that folding them leaves the float model unchanged."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.calibration.tables import ACTIVATIONS
from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model, weights_bytes
from inferometer.recording import write_run
from inferometer.smoothing.chapter import smooth
from inferometer.smoothing.tables import SCALES, SITES
from inferometer.tables import read_table, write_table
from inferometer.text import corpus_windows

snakemake: Snakemake

with job(snakemake.log[0]) as stopwatch:
    checkpoint = Path(snakemake.input.checkpoint)
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        manifest = Manifest.read(Path(snakemake.input.manifest))
        activations = read_table(ACTIVATIONS, Path(snakemake.input.activations))
        settings = {**snakemake.params.settings, "max_windows": 1}
        [proof_tokens] = corpus_windows(manifest, checkpoint, Path(snakemake.input.corpus), settings, "calibration")
        model = load_model(manifest, checkpoint, device, "float32")
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        scales, sites = smooth(model, activations, snakemake.params.alpha, proof_tokens)
    write_run(
        Path(snakemake.output.run),
        step="smooth",
        model=manifest.name,
        scheme=snakemake.wildcards.scheme,
        tokens=proof_tokens.numel(),
        weights_bytes=weights_bytes(model),
        dtype="float32",
        stopwatch=stopwatch,
        device=device,
    )
    write_table(SCALES, scales, Path(snakemake.output.scales))
    write_table(SITES, sites, Path(snakemake.output.sites))
