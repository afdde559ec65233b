"""Time and check how the float model writes with a KV cache and without."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.manifest import Manifest, check_context
from inferometer.models import weights_bytes
from inferometer.profiling.cache import check, measure
from inferometer.profiling.generation import load_to_profile
from inferometer.profiling.tables import CACHE, CACHE_CHECKS
from inferometer.recording import write_run
from inferometer.tables import write_table
from inferometer.timing import Enough

snakemake: Snakemake

with job(snakemake.log[0]) as stopwatch:
    settings, params, output = snakemake.params.settings, snakemake.params, snakemake.output
    manifest, checkpoint = Manifest.read(Path(snakemake.input.manifest)), Path(snakemake.input.checkpoint)
    lengths, new_tokens = settings["prompt_tokens"], settings["new_tokens"]
    check_context(manifest, max(lengths), new_tokens, "profiling.cache.prompt_tokens")
    device = choose_device(params.device)
    with stopwatch.phase("load"):
        model = load_to_profile(manifest, checkpoint, device, params.dtype)
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        checks = check(model, lengths, new_tokens, device)
        table = measure(model, checks, new_tokens, Enough(settings["repetitions"], settings["seconds"]), device)
    write_run(
        Path(output.run),
        step="profile_cache",
        model=manifest.name,
        scheme=None,
        tokens=int(table["prompt_tokens"].sum()),
        weights_bytes=weights_bytes(model),
        dtype=str(model.dtype).removeprefix("torch."),
        stopwatch=stopwatch,
        device=device,
    )
    write_table(CACHE_CHECKS, checks, Path(output.checks))
    write_table(CACHE, table, Path(output.table))
