"""Read long texts with windowed caches, with and without the first tokens, and take down how well each token is met."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, snakemake.params.dtype)

from pathlib import Path

from inferometer.attention.eviction import evict, read_texts
from inferometer.attention.eviction_tables import EVICTION
from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model, weights_bytes
from inferometer.recording import write_run
from inferometer.tables import write_table

with job(snakemake.log[0]) as stopwatch:
    settings, inputs, output = snakemake.params.settings, snakemake.input, snakemake.output
    manifest, checkpoint = Manifest.read(Path(inputs.manifest)), Path(inputs.checkpoint)
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        texts = read_texts(manifest, checkpoint, Path(inputs.corpus), settings)
        model = load_model(manifest, checkpoint, device, snakemake.params.dtype)
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        found = evict(model, texts, settings["window_tokens"], settings["sink_tokens"], device)
    write_run(
        Path(output.run),
        step="evict_sinks",
        model=manifest.name,
        scheme=None,
        tokens=len(found),
        weights_bytes=weights_bytes(model),
        dtype=str(model.dtype).removeprefix("torch."),
        stopwatch=stopwatch,
        device=device,
    )
    write_table(EVICTION, found.assign(corpus=settings["corpus"]), Path(output.eviction))
