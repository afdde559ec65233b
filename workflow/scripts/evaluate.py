"""Score a model on text under one scheme."""

from contextlib import ExitStack
from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.device import choose_device
from inferometer.evaluation.perplexity import score_windows
from inferometer.evaluation.tables import WINDOWS
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model, weights_bytes
from inferometer.progress import progress
from inferometer.recording import write_run
from inferometer.schemes import Scheme, rounded
from inferometer.smoothing.fold import smoothed
from inferometer.smoothing.stored import factors_of, sites_of
from inferometer.smoothing.tables import SCALES, SITES
from inferometer.tables import read_table, write_table
from inferometer.text import corpus_windows

snakemake: Snakemake

LEAST_WINDOWS = 2  # below that there is no interval

with job(snakemake.log[0]) as stopwatch:
    settings, checkpoint = snakemake.params.settings, Path(snakemake.input.checkpoint)
    scheme = Scheme.of(snakemake.wildcards.scheme, snakemake.params.scheme)
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        manifest = Manifest.read(Path(snakemake.input.manifest))
        corpus = Path(snakemake.input.corpus)
        windows = corpus_windows(manifest, checkpoint, corpus, settings, "evaluation", LEAST_WINDOWS)
        model = load_model(manifest, checkpoint, device, snakemake.params.dtype)
        dtype = str(model.dtype).removeprefix("torch.")
    with stopwatch.phase("compute"), ExitStack() as changes:
        device.reset_peak_memory()
        if snakemake.input.get("scales"):
            sites = sites_of(read_table(SITES, Path(snakemake.input.sites)))
            factors = factors_of(read_table(SCALES, Path(snakemake.input.scales)))
            changes.enter_context(smoothed(model, sites, factors))
        changes.enter_context(rounded(model, scheme))
        scores = score_windows(model, progress(windows, f"evaluating {manifest.name} as {scheme.name}"))
        device.synchronize()
    write_run(
        Path(snakemake.output.run),
        step="evaluate",
        model=manifest.name,
        scheme=scheme.name,
        tokens=len(windows) * settings["window_tokens"],
        weights_bytes=weights_bytes(model),
        dtype=dtype,
        stopwatch=stopwatch,
        device=device,
    )
    scores = scores.assign(corpus=settings["corpus"], protocol=settings["protocol"], device=device.kind, dtype=dtype)
    write_table(WINDOWS, scores, Path(snakemake.output.windows))
