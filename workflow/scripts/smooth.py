"""Find a model's smoothing sites, strengths and factors, and prove that folding them changes nothing in float."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, "float32")

from pathlib import Path

from inferometer.calibration.tables import ACTIVATIONS
from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model, weights_bytes
from inferometer.recording import write_run
from inferometer.schemes import Scheme
from inferometer.smoothing.chapter import smooth
from inferometer.smoothing.search import SEARCH_WINDOWS
from inferometer.smoothing.tables import ALPHAS, SCALES, SITES
from inferometer.tables import read_table, write_table
from inferometer.text import corpus_windows

with job(snakemake.log[0]) as stopwatch:
    checkpoint, entry = Path(snakemake.input.checkpoint), snakemake.params.scheme
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        manifest = Manifest.read(Path(snakemake.input.manifest))
        activations = read_table(ACTIVATIONS, Path(snakemake.input.activations))
        settings = {**snakemake.params.settings, "max_windows": SEARCH_WINDOWS}
        windows = corpus_windows(manifest, checkpoint, Path(snakemake.input.corpus), settings, "calibration")
        model = load_model(manifest, checkpoint, device, "float32")
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        scheme = Scheme.of(snakemake.wildcards.scheme, entry)
        smoothing = smooth(model, activations, scheme, entry["smoothing"], windows)
    write_run(
        Path(snakemake.output.run),
        step="smooth",
        model=manifest.name,
        scheme=snakemake.wildcards.scheme,
        tokens=sum(window.numel() for window in windows),
        weights_bytes=weights_bytes(model),
        dtype="float32",
        stopwatch=stopwatch,
        device=device,
    )
    write_table(SCALES, smoothing.scales, Path(snakemake.output.scales))
    write_table(SITES, smoothing.sites, Path(snakemake.output.sites))
    write_table(ALPHAS, smoothing.alphas, Path(snakemake.output.alphas))
