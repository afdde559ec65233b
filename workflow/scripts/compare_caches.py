"""Score, weigh and time every cache policy on one model, under each scheme of its weights."""

import gc
from functools import partial
from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.kv_cache.compare import Measured, compare, refused
from inferometer.kv_cache.policies import Policy
from inferometer.kv_cache.texts import read_texts
from inferometer.kv_cache.write import write_policy
from inferometer.manifest import Manifest
from inferometer.models import load_tokenizer
from inferometer.profiling.generation import load_to_profile
from inferometer.profiling.subjects import subjects, weights_bytes_of
from inferometer.recording import write_run
from inferometer.timing import Enough

snakemake: Snakemake

with job(snakemake.log[0]) as stopwatch:
    settings, params, inputs, output = snakemake.params.settings, snakemake.params, snakemake.input, snakemake.output
    manifest, checkpoint = Manifest.read(Path(inputs.manifest)), Path(inputs.checkpoint)
    policies = {name: Policy.of(name, entry) for name, entry in params.policies.items()}
    device, load = choose_device(params.device), partial(load_to_profile, manifest, checkpoint)
    with stopwatch.phase("load"):
        sets = dict(zip(settings["choices"]["question_sets"], map(Path, inputs.questions), strict=True))
        tokenizer = load_tokenizer(manifest, checkpoint)
        texts = read_texts(manifest, tokenizer, Path(inputs.corpus), sets, settings)
    measured: dict[str, dict[str, Measured]] = {name: {} for name in policies}
    with subjects(params.schemes, [params.dtype], [manifest.layers], partial(load, device)) as own:
        gc.freeze()  # what is there now stays to the end, and need not be looked at whenever memory is trimmed
        device.reset_peak_memory()
        enough = Enough(settings["repetitions"], settings["seconds"])
        with stopwatch.phase("compute"):
            for subject in own:
                arms = [policies[name] for name in settings["schemes"][subject.scheme]]
                if subject.model is None:
                    found = {policy.name: refused(str(subject.reason), texts) for policy in arms}
                else:
                    found = dict(compare(subject.model, arms, texts, enough, device))
                for name, rows in found.items():
                    measured[name][subject.scheme] = rows
        machine = {"dtype": own[0].dtype, "device": device.kind}
        write_run(
            Path(output.run),
            step="compare_caches",
            model=manifest.name,
            scheme=None,
            tokens=sum(window.shape[1] for window in texts.windows) * sum(map(len, settings["schemes"].values())),
            weights_bytes=weights_bytes_of(own),
            dtype=machine["dtype"],
            stopwatch=stopwatch,
            device=device,
        )
    for index, rows_of in enumerate(measured.values()):
        files = {part: Path(output[part][index]) for part in ("perplexity", "choices", "latency", "memory")}
        write_policy(rows_of, files, machine)
