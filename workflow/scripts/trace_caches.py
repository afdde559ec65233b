"""Write a text under every policy that chooses bits, and keep which bits its tokens got."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, snakemake.params.dtype)

from pathlib import Path

from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.kv_cache.policies import Policy
from inferometer.kv_cache.tables import CACHE_TRACE
from inferometer.kv_cache.trace import trace
from inferometer.manifest import Manifest, check_context
from inferometer.models import load_model, load_tokenizer
from inferometer.tables import write_table
from inferometer.writing import encoded

with job(snakemake.log[0]):
    settings, params = snakemake.params.settings, snakemake.params
    manifest, checkpoint = Manifest.read(Path(snakemake.input.manifest)), Path(snakemake.input.checkpoint)
    tokenizer, device = load_tokenizer(manifest, checkpoint), choose_device(params.device)
    prompt = encoded(tokenizer, settings["prompt"]).to(device.torch_device)
    check_context(manifest, prompt.shape[1], settings["new_tokens"], "kv_cache.trace.new_tokens")
    model = load_model(manifest, checkpoint, device, params.dtype)
    for (name, entry), path in zip(params.policies.items(), snakemake.output, strict=True):
        table = trace(model, tokenizer, Policy.of(name, entry), prompt, settings["new_tokens"])
        write_table(CACHE_TRACE, table, Path(path))
