"""Measure a model under one scheme: perplexity, fidelity, choices, layers and storage."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, snakemake.params.dtype)

from pathlib import Path

from inferometer.device import choose_device
from inferometer.evaluation.choices import encode_questions, read_questions
from inferometer.evaluation.evaluate import Evaluation, evaluate, or_skipped
from inferometer.evaluation.write import read_reference, write_evaluation
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model, load_tokenizer, weight_matrix, weights_bytes
from inferometer.preparation import preparation_of
from inferometer.recording import write_run
from inferometer.schemes import Scheme
from inferometer.text import corpus_windows

LEAST_WINDOWS = 2  # below that there is no interval

with job(snakemake.log[0]) as stopwatch:
    settings, inputs = snakemake.params.settings, snakemake.input
    checkpoint, sets = Path(inputs.checkpoint), settings["choices"]
    scheme = Scheme.of(snakemake.wildcards.scheme, snakemake.params.scheme)
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        manifest = Manifest.read(Path(inputs.manifest))
        corpus, tokenizer = Path(inputs.corpus), load_tokenizer(manifest, checkpoint)
        windows = corpus_windows(manifest, checkpoint, corpus, settings, "evaluation", LEAST_WINDOWS)
        calibration = snakemake.params.rounding and corpus_windows(
            manifest, checkpoint, Path(inputs.calibration_corpus), snakemake.params.rounding, "calibration"
        )
        files = dict(zip(sets["question_sets"], map(Path, inputs.questions), strict=True))
        questions = read_questions(files, sets["max_items"])
        prompts = encode_questions(tokenizer, questions, manifest.context_tokens)
        model = load_model(manifest, checkpoint, device, snakemake.params.dtype)
        width = weight_matrix(model.get_output_embeddings()).shape[1]
        reference = read_reference(Path(inputs.hidden), windows, width) if inputs.get("hidden") else None
        dtype = str(model.dtype).removeprefix("torch.")
    with stopwatch.phase("compute"):
        device.reset_peak_memory()

        def measured() -> Evaluation:
            """The evaluation, where there is all that it needs."""
            preparation = preparation_of(model, scheme, dict(inputs.items()), calibration or [])
            return evaluate(model, scheme, preparation, windows, reference, questions, prompts, device.synchronize)

        # No parameter: what was measured holds either way. Without the float model there is nothing to go on with.
        keeps_going = snakemake.config["study"]["keep_going"] and reference is not None
        result = or_skipped(measured, scheme, manifest.name, device, keeps_going=keeps_going)
    write_run(
        Path(snakemake.output.run),
        step="evaluate",
        model=manifest.name,
        scheme=scheme.name,
        tokens=len(windows) * settings["window_tokens"],
        weights_bytes=weights_bytes(model),
        dtype=dtype,
        forward_s=result.scores.forward_s,
        stopwatch=stopwatch,
        device=device,
    )
    origin = {"corpus": settings["corpus"], "protocol": settings["protocol"]}
    write_evaluation(result, dict(snakemake.output.items()), origin, {"device": device.kind, "dtype": dtype})
