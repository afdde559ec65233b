"""Time how a model reads and writes, under every scheme and dtype that is profiled."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity.catalogue import shape_or_reason
from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.manifest import Manifest, check_context
from inferometer.profiling.generation import load_to_profile
from inferometer.profiling.latency import measure
from inferometer.profiling.subjects import layer_counts, subjects, weights_bytes_of
from inferometer.profiling.tables import LATENCY
from inferometer.recording import write_run
from inferometer.tables import write_table
from inferometer.timing import Enough

snakemake: Snakemake

with job(snakemake.log[0]) as stopwatch, ExitStack() as stack:
    settings, wanted = snakemake.params.settings, snakemake.params.subjects
    manifest, checkpoint = Manifest.read(Path(snakemake.input.manifest)), Path(snakemake.input.checkpoint)
    lengths, new_tokens = settings["prompt_tokens"], settings["new_tokens"]
    check_context(manifest, max(lengths), new_tokens, "profiling.latency.prompt_tokens")
    device, shape = choose_device(snakemake.params.device), shape_or_reason(checkpoint, manifest.name)
    with stopwatch.phase("load"):
        load = partial(load_to_profile, manifest, checkpoint, device)
        own = stack.enter_context(subjects(wanted["schemes"], wanted["dtypes"], layer_counts(manifest), load))
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        enough = Enough(settings["repetitions"], settings["seconds"])
        table = measure(own, lengths, settings["batches"], new_tokens, enough, device, shape)
    write_run(
        Path(snakemake.output.run),
        step="profile_latency",
        model=manifest.name,
        scheme=None,
        tokens=int((table["prompt_tokens"] * table["batch"])[table["phase"] == "prefill"].sum()),
        weights_bytes=weights_bytes_of(own),
        dtype=" ".join(sorted({subject.dtype for subject in own})),
        stopwatch=stopwatch,
        device=device,
    )
    write_table(LATENCY, table, Path(snakemake.output.table))
