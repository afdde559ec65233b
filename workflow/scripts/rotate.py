"""Find what a rotation touches in a model, prove that the float model stays what it was, and round both weights."""

from snakemake.iocontainers import Snakemake

from inferometer.keeper import hand_over

snakemake: Snakemake
hand_over(snakemake.input.manifest, snakemake.input.checkpoint, snakemake.params.device, "float32")

from pathlib import Path

from inferometer.device import choose_device
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.models import load_model, weights_bytes
from inferometer.recording import write_run
from inferometer.rotation.basis import compare_bases
from inferometer.rotation.proof import prove_rotation
from inferometer.rotation.stored import table_of
from inferometer.rotation.tables import BASIS, PATHS
from inferometer.tables import write_table
from inferometer.text import corpus_windows

with job(snakemake.log[0]) as stopwatch:
    checkpoint = Path(snakemake.input.checkpoint)
    device = choose_device(snakemake.params.device)
    with stopwatch.phase("load"):
        manifest = Manifest.read(Path(snakemake.input.manifest))
        settings = {**snakemake.params.settings, "max_windows": 1}
        [proof_tokens] = corpus_windows(manifest, checkpoint, Path(snakemake.input.corpus), settings, "calibration")
        model = load_model(manifest, checkpoint, device, "float32")
    with stopwatch.phase("compute"):
        device.reset_peak_memory()
        seed = int(snakemake.wildcards.seed)
        paths, error = prove_rotation(model, seed, proof_tokens.to(model.device))
        basis = compare_bases(model, paths, seed)
    write_run(
        Path(snakemake.output.run),
        step=f"rotate (seed {seed})",
        model=manifest.name,
        scheme=None,
        tokens=proof_tokens.numel(),
        weights_bytes=weights_bytes(model),
        dtype="float32",
        stopwatch=stopwatch,
        device=device,
    )
    write_table(PATHS, table_of(paths, error), Path(snakemake.output.paths))
    write_table(BASIS, basis, Path(snakemake.output.basis))
