"""Read all texts of the chapter in float, and take down what every head looks at."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, snakemake.params.dtype)

from pathlib import Path

from inferometer.attention.inputs import begun_otherwise, streams_of, texts_of
from inferometer.attention.tables import HEADS, MAPS, POSITIONS, RESIDUALS
from inferometer.attention.trace import trace
from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model, load_tokenizer, weights_bytes
from inferometer.recording import write_run
from inferometer.tables import write_table

with job(snakemake.log[0]) as stopwatch:
    settings, files, output = snakemake.params.inputs, snakemake.input, snakemake.output
    manifest, checkpoint = Manifest.read(Path(files.manifest)), Path(files.checkpoint)
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        tokenizer = load_tokenizer(manifest, checkpoint)
        corpora = dict(zip(settings["corpora"], map(Path, files.corpora), strict=True))
        questions = dict(zip(settings["question_sets"], map(Path, files.questions), strict=True))
        texts = texts_of(tokenizer, streams_of(tokenizer, corpora, questions), settings, manifest)
        begun, no_bos = begun_otherwise(tokenizer, texts, snakemake.params.first_token)
        model = load_model(manifest, checkpoint, device, snakemake.params.dtype)
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        found = trace(model, tokenizer, texts, begun, no_bos, device)
    write_run(
        Path(output.run),
        step="capture_attention",
        model=manifest.name,
        scheme=None,
        tokens=sum(text.tokens.numel() for text in [*texts, *begun]),
        weights_bytes=weights_bytes(model),
        dtype=str(model.dtype).removeprefix("torch."),
        stopwatch=stopwatch,
        device=device,
    )
    write_table(HEADS, found.heads, Path(output.heads))
    write_table(POSITIONS, found.positions, Path(output.positions))
    write_table(MAPS, found.maps, Path(output.maps))
    write_table(RESIDUALS, found.residuals, Path(output.residuals))
