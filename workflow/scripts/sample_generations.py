"""Let the float model write by chance after prompts, at every temperature and with every seed."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, snakemake.params.dtype)

from pathlib import Path

from inferometer.device import choose_device
from inferometer.generation.prepare import encode_prompts
from inferometer.generation.sampling import Sampling, sample
from inferometer.generation.tables import SAMPLES
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model, load_tokenizer, weights_bytes
from inferometer.recording import write_run
from inferometer.tables import write_table

with job(snakemake.log[0]) as stopwatch:
    params, inputs, output = snakemake.params, snakemake.input, snakemake.output
    manifest, checkpoint = Manifest.read(Path(inputs.manifest)), Path(inputs.checkpoint)
    device = choose_device(params.device)
    sampling = Sampling(**params.sampling)
    with stopwatch.phase("load"):
        tokenizer = load_tokenizer(manifest, checkpoint)
        key = "generation.sampling.new_tokens"
        prompts = encode_prompts(manifest, tokenizer, params.prompts, sampling.new_tokens, key)
        model = load_model(manifest, checkpoint, device, params.dtype)
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        samples = sample(model, tokenizer, prompts, sampling, device)
    write_run(
        Path(output.run),
        step="sample_generations",
        model=manifest.name,
        scheme=None,
        tokens=int(samples["tokens"].sum()),
        weights_bytes=weights_bytes(model),
        dtype=str(model.dtype).removeprefix("torch."),
        stopwatch=stopwatch,
        device=device,
    )
    write_table(SAMPLES, samples, Path(output.samples))
