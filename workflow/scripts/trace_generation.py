"""Let the float model write after prompts and meet words that do not belong, and take down what each token is to it."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, snakemake.params.dtype)

from pathlib import Path

from inferometer.device import choose_device
from inferometer.generation.insertions import insert
from inferometer.generation.prepare import prepare
from inferometer.generation.tables import FEATURES, INSERTIONS, WRITTEN
from inferometer.generation.trace import trace
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model, load_tokenizer, weights_bytes
from inferometer.recording import write_run
from inferometer.tables import write_table

with job(snakemake.log[0]) as stopwatch:
    settings, inputs, output = snakemake.params.settings, snakemake.input, snakemake.output
    manifest, checkpoint = Manifest.read(Path(inputs.manifest)), Path(inputs.checkpoint)
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        tokenizer = load_tokenizer(manifest, checkpoint)
        prepared = prepare(manifest, tokenizer, Path(inputs.corpus), settings)
        model = load_model(manifest, checkpoint, device, snakemake.params.dtype)
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        found = trace(model, tokenizer, prepared.prompts, settings["new_tokens"], device)
        inserted = insert(model, prepared.contexts, prepared.words, device)
    write_run(
        Path(output.run),
        step="trace_generation",
        model=manifest.name,
        scheme=None,
        tokens=len(found.features),
        weights_bytes=weights_bytes(model),
        dtype=str(model.dtype).removeprefix("torch."),
        stopwatch=stopwatch,
        device=device,
    )
    write_table(WRITTEN, found.written, Path(output.written))
    write_table(FEATURES, found.features, Path(output.features))
    write_table(INSERTIONS, inserted, Path(output.insertions))
