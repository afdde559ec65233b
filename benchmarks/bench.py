"""Speed and memory of the measuring steps as ratios from one run, and where the time of a whole study goes.

`make bench` prints the throughput of calibration and evaluation beside that of a plain forward pass of the same model
on the same text, the memory that calibration adds to the weights, the time of the default study from nothing to its
report, split into model arithmetic and everything else, with that of a second run, the speed of integer layers,
what KV caches on few bits take and cost, what capturing attention takes, and how plans, summaries and the page grow.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
import yaml
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.attention import bench_attention
from benchmarks.integer import bench_integer_layers, bench_integer_model, seconds_by_round
from benchmarks.kv_cache import bench_caches
from benchmarks.scale import bench_growth, bench_plan
from inferometer.calibration.calibrate import calibrate
from inferometer.device import choose_device
from inferometer.evaluation.perplexity import score_windows
from inferometer.evaluation.reference import ReferenceHead
from inferometer.layers import chosen_layers
from inferometer.manifest import Manifest
from inferometer.models import load_model, weights_bytes
from inferometer.quantization.model import quantized
from inferometer.runs import RUN
from inferometer.schemes import Scheme
from inferometer.tables import read_table
from inferometer.text import corpus_windows

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
WINDOWS = 32


def _plain_forward(model: PreTrainedModel, windows: list[Tensor]) -> None:
    with torch.inference_mode():
        for window in windows:
            model(window.to(model.device))


def _default() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    return config


def _sources(study: Path) -> Path:
    """Where the default study keeps its one model with weights."""
    config = _default()
    name: str
    [name] = [name for name in config["study"]["models"] if config["models"][name]["source"] != "architecture"]
    return study / "results" / name / "sources"


def bench_throughput(study: Path) -> None:
    """Print the tokens/s of each step over those of the plain forward pass; the arms take turns, round by round."""
    config, folder = _default(), _sources(study)
    manifest, device = Manifest.read(folder / "model.json"), choose_device("auto")
    corpus = study / "results/sources/corpora" / f"{config['calibration']['corpus']}.parquet"
    settings = {**config["calibration"], "max_windows": WINDOWS}
    windows = corpus_windows(manifest, folder / "checkpoint", corpus, settings, "calibration")
    model = load_model(manifest, folder / "checkpoint", device)
    layers = chosen_layers(config["calibration"]["layers"], manifest.layers)

    def forward_rounded(scheme: str) -> None:
        with quantized(model, Scheme.of(scheme, config["schemes"][scheme]), [], {}):
            _plain_forward(model, windows)

    head = ReferenceHead(model)
    arms: dict[str, Callable[[], object]] = {
        "plain forward pass": lambda: _plain_forward(model, windows),
        "calibration": lambda: calibrate(model, windows, layers),
        "w8a8, simulated": lambda: forward_rounded("w8a8"),
        "w8a8, on integers": lambda: forward_rounded("w8a8-integer"),
        "scoring, with KL": lambda: score_windows(model, windows, head),
    }
    wanted = {"calibration": 0.8, "w8a8, simulated": 0.9, "w8a8, on integers": 1.6}
    _plain_forward(model, windows[:4])
    before = device.memory_bytes()
    device.reset_peak_memory()
    calibrate(model, windows, layers)
    added_gb = (device.peak_memory_bytes() - before) / 1e9
    seconds = seconds_by_round(arms, device, ROUNDS)
    tokens = WINDOWS * settings["window_tokens"]
    print(f"\nThroughput on {device.name}, {tokens:,} tokens a round, medians of {ROUNDS} interleaved rounds")
    print(f"{'':24}{'tokens/s':>10}{'ratio':>8}{'wanted':>9}")
    for arm, samples in seconds.items():
        ratio = median(base / own for base, own in zip(seconds["plain forward pass"], samples, strict=True))
        goal = f"{wanted[arm]:.2f}" if arm in wanted else ""
        print(f"{arm:24}{tokens / median(samples):10.0f}{ratio:8.2f}{goal:>9}")
    print("\nPeak memory of calibration above the loaded model (on a CPU: of the process)")
    print(f"{added_gb:.2f} GB beside weights of {weights_bytes(model) / 1e9:.2f} GB (wanted: at most 1.5 GB)")


def bench_study(study: Path) -> None:
    """Run the default study from nothing in the folder `study`, then once more, and print where the time went."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(study)]
    command += ["--workflow-profile", str(ROOT / "profiles/default"), "--cores", "1", "--resources", "gpu=1"]
    walls = []
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ)
        walls.append(time.perf_counter() - start)
    jobs = {
        path.relative_to(study / "results/benchmarks").with_suffix("").as_posix(): float(
            pd.read_csv(path, sep="\t")["s"].iloc[0]
        )
        for path in (study / "results/benchmarks").rglob("*.tsv")
    }
    runs = read_table(RUN, study / "results/summary/runs.parquet")
    arithmetic = float(runs["compute_s"].sum())
    evaluations = runs[runs["step"] == "evaluate"]
    all_schemes = float(evaluations[["startup_s", "load_s", "compute_s"]].sum().sum())
    profiled = sum(seconds for job, seconds in jobs.items() if job.startswith("profile_"))
    searches = runs[(runs["step"] == "smooth") & (runs["tokens"] > 0)]["compute_s"].max()
    search_over_calibration = searches / runs[runs["step"] == "calibrate"]["compute_s"].max()
    print(f"\nThe default study from nothing to its report: {walls[0]:.0f} s (wanted: at most 900 s)")
    print(f"  all {len(evaluations)} schemes together         {all_schemes:6.0f} s   (wanted: at most 300 s)")
    print(f"  all profiling jobs together         {profiled:6.0f} s   (wanted: at most 180 s)")
    caches = sum(seconds for job, seconds in jobs.items() if job.startswith(("compare_caches", "trace_caches")))
    print(f"  KV caches                           {caches:6.0f} s   (wanted: at most 180 s)")
    print(f"  longest search for alpha, over calibration {search_over_calibration:5.2f} (wanted: at most 3)")
    print(f"  model arithmetic and statistics {arithmetic:6.0f} s")
    print(f"  imports in measuring jobs       {runs['startup_s'].sum():6.0f} s")
    print(f"  loading in measuring jobs       {runs['load_s'].sum():6.0f} s")
    print(
        f"  everything else                 {walls[0] - runs[['compute_s', 'startup_s', 'load_s']].sum().sum():6.0f} s"
    )
    print(f"  share that is not arithmetic    {1 - arithmetic / walls[0]:6.2f}   (wanted: at most 0.33)")
    print(f"A second run, which does nothing: {walls[1]:.1f} s (wanted: at most 5 s)")
    print("Longest jobs, in seconds:")
    for job, duration in sorted(jobs.items(), key=lambda item: -item[1])[:8]:
        print(f"  {job:50}{duration:6.1f}")


def main() -> None:
    """Bench a whole study in a folder of its own, then the steps one by one on what it fetched."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, help="use the finished study in this folder instead of running one")
    chosen: Path | None = parser.parse_args().study
    with tempfile.TemporaryDirectory() as temporary:
        study = chosen or Path(temporary)
        if chosen is None:
            bench_study(study)
        bench_throughput(study)
        bench_integer_layers()
        bench_integer_model(_sources(study))
        bench_caches(_sources(study))
        bench_attention(_sources(study))
        bench_growth(study)
        bench_plan()


if __name__ == "__main__":
    main()
