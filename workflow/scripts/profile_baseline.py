"""Let the float model answer a few prompts, and take down what that costs."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_tokenizer, weights_bytes
from inferometer.profiling.baseline import measure
from inferometer.profiling.generation import load_to_profile
from inferometer.profiling.tables import BASELINE
from inferometer.recording import write_run
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]) as stopwatch:
    settings, params = snakemake.params.settings, snakemake.params
    manifest, checkpoint = Manifest.read(Path(snakemake.input.manifest)), Path(snakemake.input.checkpoint)
    device = choose_device(params.device)
    with stopwatch.phase("load"):
        tokenizer = load_tokenizer(manifest, checkpoint)
        model = load_to_profile(manifest, checkpoint, device, params.dtype)
    with stopwatch.phase("compute"):
        table = measure(model, tokenizer, settings["prompts"], settings["batches"], settings["new_tokens"], device)
    write_run(
        Path(snakemake.output.run),
        step="profile_baseline",
        model=manifest.name,
        scheme=None,
        tokens=int((table["batch"] * table["new_tokens"]).sum()),
        weights_bytes=weights_bytes(model),
        dtype=str(model.dtype).removeprefix("torch."),
        stopwatch=stopwatch,
        device=device,
    )
    write_table(BASELINE, table, Path(snakemake.output.table))
