"""Read texts under schemes and KV caches, and take down what every head looks at."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, snakemake.params.dtype)

from pathlib import Path

from inferometer.attention.rounded import rounded_attention
from inferometer.attention.tables import ROUNDED
from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.kv_cache.policies import Policy
from inferometer.manifest import Manifest
from inferometer.models import load_model, weights_bytes
from inferometer.recording import write_run
from inferometer.schemes import Scheme
from inferometer.tables import write_table
from inferometer.text import corpus_windows

LEAST_TEXTS = 2  # below that there is no interval

with job(snakemake.log[0]) as stopwatch:
    params, files = snakemake.params, snakemake.input
    settings = params.settings
    manifest, checkpoint = Manifest.read(Path(files.manifest)), Path(files.checkpoint)
    device = choose_device(params.device)
    with stopwatch.phase("load"):
        texts = corpus_windows(manifest, checkpoint, Path(files.corpus), settings, "attention.rounding", LEAST_TEXTS)
        model = load_model(manifest, checkpoint, device, params.dtype)
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        schemes = [Scheme.of(name, entry) for name, entry in params.schemes.items()]
        policies = [Policy.of(name, entry) for name, entry in params.policies.items()]
        found = rounded_attention(model, texts, params.reference, schemes, policies, settings, device)
    write_run(
        Path(snakemake.output.run),
        step="compare_attention",
        model=manifest.name,
        scheme=None,
        tokens=len(texts) * settings["window_tokens"] * (1 + len(schemes) + len(policies)),
        weights_bytes=weights_bytes(model),
        dtype=str(model.dtype).removeprefix("torch."),
        stopwatch=stopwatch,
        device=device,
    )
    write_table(ROUNDED, found, Path(snakemake.output.rounded))
