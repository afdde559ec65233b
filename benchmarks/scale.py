"""How planning, summaries and the page grow: a study of 20 models and 30 schemes, and results of 1, 10 and 100 models.

The results are those of a finished study, its model repeated under other names, so that every table has that many times
the rows. Snakemake itself runs each summary, and the seconds and the memory are those of its own records.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.scale_study import ROOT, wide_study
from inferometer.manifest import Manifest

FACTORS = (1, 10, 100)
RULES = (
    *("summarize_ranges", "summarize_perplexity", "summarize_schemes", "compare_bytes", "summarize_profiling"),
    *("summarize_kv_cache", "summarize_generation", "summarize_diversity", "summarize_attention", "summarize_eviction"),
    *("summarize_runs", "judge_claims", "report"),
)
LARGE = shutil.ignore_patterns("hidden.safetensors", "scales.parquet", "checkpoint")  # which no summary opens


def _snakemake(folder: Path, overlay: Mapping[str, Any], *arguments: str) -> tuple[float, float, str]:
    """Wall seconds, peak MB and output of a call of snakemake with an overlay in a folder."""
    file = folder / "overlay.yaml"
    file.write_text(yaml.safe_dump(dict(overlay), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--workflow-profile", str(ROOT / "profiles/default"), "--configfile", str(file), "--cores", "1"]
    start = time.perf_counter()
    with (folder / "output.txt").open("wb") as sink:
        process = subprocess.Popen([*command, *arguments], stdout=sink, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    output = (folder / "output.txt").read_text(encoding="utf-8")
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and "--lint" not in arguments:  # which ends so where it has anything to say
        raise SystemExit(output)
    return wall_s, used.ru_maxrss / 1024, output


def bench_plan(models: int = 20, schemes: int = 30) -> None:
    """Print how long a study of all chapters is linted and planned."""
    print(f"\nA study of {models} models and {schemes} schemes, all chapters (wanted: both together below 20 s)")
    for argument in ("--lint", "--dry-run"):
        with tempfile.TemporaryDirectory() as temporary:
            wall_s, peak_mb, output = _snakemake(Path(temporary), wide_study(models, schemes), argument)
        jobs = [line.split()[1] for line in output.splitlines() if line.startswith("total ")]
        print(f"{argument:10}{wall_s:6.1f} s{peak_mb:7.0f} MB  {f'{jobs[0]} jobs' if jobs else ''}")


def _repeat(study: Path, config: Mapping[str, Any], models: int, folder: Path) -> dict[str, Any]:
    """Make a folder with the results of a study whose one measured model has so many names; returns its overlay."""
    results, target = study / "results", folder / "results"
    measured = [name for name in config["study"]["models"] if config["models"][name]["source"] != "architecture"]
    [model] = measured
    shutil.copytree(results, target, symlinks=True, ignore=LARGE)
    for checkpoint in results.glob("*/sources/checkpoint"):  # but for its configuration
        (target / checkpoint.relative_to(results)).symlink_to(checkpoint)
    for name in ("models", "texts"):
        if (study / name).is_dir():
            (folder / name).symlink_to(study / name)
    names = [model, *(f"{model}-{number:03}" for number in range(1, models))]
    for name in names[1:]:
        shutil.copytree(target / model, target / name, symlinks=True, copy_function=os.link)
        manifest = target / name / "sources/model.json"
        own = Manifest.read(manifest)
        manifest.unlink()  # a link to the model's own
        dataclasses.replace(own, name=name).write(manifest)
        for path in (target / name).rglob("*.parquet"):
            if "model" in (schema := pq.read_schema(path)).names:
                rows = pq.read_table(path)
                column = pa.array([name] * len(rows), pa.string())
                place = schema.get_field_index("model")
                path.unlink()
                pq.write_table(rows.set_column(place, schema.field(place), column), path)
    return {
        **config,
        "models": {**config["models"], **dict.fromkeys(names, config["models"][model])},
        "study": {**config["study"], "models": [*names, *set(config["study"]["models"]) - {model}]},
    }


def bench_growth(study: Path) -> None:
    """Print seconds and peak memory of each summary and of the page with a multiple of a finished study's rows."""
    found: dict[tuple[str, int], tuple[float, float]] = {}
    page_mb = {}
    study = study.resolve()
    config = yaml.safe_load((study / "results/provenance/configuration.yaml").read_text(encoding="utf-8"))
    for factor in FACTORS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            overlay = _repeat(study, config, factor, folder)
            _snakemake(folder, overlay, "--allowed-rules", *RULES, "--forcerun", *RULES, "--", *RULES)
            for rule in RULES:
                record = pd.read_csv(folder / f"results/benchmarks/{rule}.tsv", sep="\t").iloc[0]
                found[rule, factor] = float(record["s"]), float(record["max_rss"])
            page_mb[factor] = (folder / "results/report.html").stat().st_size / 1e6
    print(f"\nSummaries and the page, s and MB, with results of {' and '.join(map(str, FACTORS))} models")
    for rule in RULES:
        cells = "".join("{:9.1f} s{:6.0f} MB".format(*found[rule, factor]) for factor in FACTORS)
        print(f"{rule:22}{cells}")
    print("Bytes of the page: " + ", ".join(f"{size:.1f} MB" for size in page_mb.values()))
