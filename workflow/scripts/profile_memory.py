"""Weigh the float model while it writes."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.manifest import Manifest, check_context
from inferometer.profiling.generation import load_to_profile
from inferometer.profiling.memory import measure
from inferometer.profiling.subjects import layer_counts, subjects, weights_bytes_of
from inferometer.profiling.tables import MEMORY
from inferometer.recording import write_run
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]) as stopwatch, ExitStack() as stack:
    settings, params = snakemake.params.settings, snakemake.params
    manifest, checkpoint = Manifest.read(Path(snakemake.input.manifest)), Path(snakemake.input.checkpoint)
    prompt_tokens, new_tokens = settings["prompt_tokens"], settings["new_tokens"]
    check_context(manifest, prompt_tokens, max(new_tokens), "profiling.memory.new_tokens")
    device = choose_device(params.device)
    with stopwatch.phase("load"):
        load = partial(load_to_profile, manifest, checkpoint, device)
        own = stack.enter_context(subjects({params.reference: {}}, [params.dtype], layer_counts(manifest), load))
    with stopwatch.phase("compute"):
        table = measure(own, prompt_tokens, new_tokens, device)
    write_run(
        Path(snakemake.output.run),
        step="profile_memory",
        model=manifest.name,
        scheme=None,
        tokens=int(table.groupby("layers")["context_tokens"].max().sum()),
        weights_bytes=weights_bytes_of(own),
        dtype=own[0].dtype,
        stopwatch=stopwatch,
        device=device,
    )
    write_table(MEMORY, table, Path(snakemake.output.table))
