"""Stream calibration text through a model and keep the statistics of every linear layer."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, snakemake.params.dtype)

from pathlib import Path

from inferometer.calibration.calibrate import calibrate
from inferometer.calibration.tables import ACTIVATIONS, HISTOGRAMS, SURFACES, WEIGHTS
from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.layers import chosen_layers
from inferometer.manifest import Manifest
from inferometer.models import load_model, weights_bytes
from inferometer.progress import progress
from inferometer.recording import write_run
from inferometer.tables import write_table
from inferometer.text import corpus_windows

with job(snakemake.log[0]) as stopwatch:
    settings, checkpoint = snakemake.params.settings, Path(snakemake.input.checkpoint)
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        manifest = Manifest.read(Path(snakemake.input.manifest))
        layers = chosen_layers(settings["layers"], manifest.layers)
        windows = corpus_windows(manifest, checkpoint, Path(snakemake.input.corpus), settings, "calibration")
        model = load_model(manifest, checkpoint, device, snakemake.params.dtype)
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        calibration = calibrate(model, progress(windows, f"calibrating {manifest.name}"), layers)
        device.synchronize()
    write_run(
        Path(snakemake.output.run),
        step="calibrate",
        model=manifest.name,
        scheme=None,
        tokens=calibration.tokens,
        weights_bytes=weights_bytes(model),
        dtype=str(model.dtype).removeprefix("torch."),
        stopwatch=stopwatch,
        device=device,
    )
    write_table(ACTIVATIONS, calibration.activations, Path(snakemake.output.activations))
    write_table(WEIGHTS, calibration.weights, Path(snakemake.output.weights))
    write_table(HISTOGRAMS, calibration.histograms, Path(snakemake.output.histograms))
    write_table(SURFACES, calibration.surfaces, Path(snakemake.output.surfaces))
