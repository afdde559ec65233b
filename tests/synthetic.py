"""A small study with made-up results, as the workflow leaves them: tables, figures and manifests, without any model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from inferometer.calibration.tables import RANGES
from inferometer.evaluation.summary import summarize_gains, summarize_perplexity
from inferometer.evaluation.tables import GAINS, PERPLEXITY
from inferometer.manifest import Manifest
from inferometer.plotting import save
from inferometer.runs import RUN
from inferometer.smoothing.tables import SITES
from inferometer.tables import write_table

LAYERS = 4
WINDOWS = 12
COSTS = {"fp": 0.0, "w8a8": 0.03, "w8a8-smooth": 0.012, "w4a4": 6.0, "w4a4-smooth": 5.0}
MEASURED, SHAPES = "tiny-llama", "shapes-only"

Config = dict[str, Any]


def study(schemes: Sequence[str] = tuple(COSTS), title: str = "A study of nothing", **texts: Any) -> Config:
    """The configuration of a study with a measured model and one with random weights.

    `texts` are added to the entry of the measured model: attribution, licence, caveat.
    """
    grids = {
        f"w{bits}a{bits}": {
            "weights": {"bits": bits, "granularity": "per_channel"},
            "activations": {"bits": bits, "granularity": "per_token"},
        }
        for bits in (8, 4)
    }
    smooth = {f"{name}-smooth": {**grid, "smoothing": {"alpha": 0.5}} for name, grid in grids.items()}
    return {
        "models": {
            MEASURED: {"source": "hub", "id": "someone/tiny-llama", "revision": "0" * 40, **texts},
            SHAPES: {"source": "architecture", "config": {"model_type": "llama"}, "seed": 0},
        },
        "corpora": {
            "prose": {
                "source": "hub",
                "id": "someone/prose",
                "revision": "1" * 40,
                "file": "prose.txt",
                "file_sha256": "2" * 64,
                "format": "txt",
            }
        },
        "schemes": {"fp": {}, **grids, **smooth},
        "study": {"title": title, "models": [MEASURED, SHAPES], "schemes": list(schemes)},
        "calibration": {
            "corpus": "prose",
            "window_tokens": 512,
            "max_windows": 8,
            "layers": ["first", "middle", "last"],
        },
        "evaluation": {
            "corpus": "prose",
            "protocol": "smoothquant",
            "window_tokens": 512,
            "max_windows": WINDOWS,
            "reference": "fp",
        },
        "figures": {"dpi": 60},
        "device": "cpu",
    }


def _manifest(name: str, *, random_weights: bool) -> Manifest:
    return Manifest(
        name=name,
        origin=f"hub someone/{name} at {'0' * 40}",
        architecture="LlamaForCausalLM",
        parameters=1_234_567,
        layers=LAYERS,
        hidden_size=64,
        vocabulary=1000,
        context_tokens=2048,
        dtype="float32",
        random_weights=random_weights,
        seed=0 if random_weights else None,
        files=(),
    )


def scores(schemes: list[str]) -> dict[tuple[str, str], pd.DataFrame]:
    """WINDOWS tables of the measured model: text that is hard is hard under all schemes."""
    generator = np.random.default_rng(0)
    difficulty = generator.normal(3.2, 0.3, WINDOWS)
    tables = {}
    for scheme in schemes:
        nll = difficulty + COSTS[scheme] * generator.normal(1, 0.1, WINDOWS)
        table = pd.DataFrame({"window": range(WINDOWS), "tokens": 511, "nll": nll})
        tables[MEASURED, scheme] = table.assign(corpus="prose", protocol="smoothquant", device="cpu", dtype="float32")
    return tables


def ranges() -> pd.DataFrame:
    """A RANGES table in which the first token's inputs are ten times as large."""
    layers = [(f"model.layers.{layer}.mlp.up_proj", layer) for layer in range(LAYERS)]
    rows = [
        {
            "model": MEASURED,
            "layer": name,
            "decoder_layer": layer,
            "first_token": first,
            "weight_min": -0.5,
            "weight_max": 0.25,
            "activation_min": -2.0,
            "activation_max": (10.0 if first else 1.0) * (place + 1),
            "ratio": (20.0 if first else 2.0) * (place + 1),
            "largest_channel": 3 if first else 7,
            "beyond_6_sigma": 0.001,
        }
        for place, (name, layer) in enumerate([*layers, ("lm_head", None)])
        for first in (True, False)
    ]
    return pd.DataFrame(rows).astype({"decoder_layer": "Int64"})


def sites() -> pd.DataFrame:
    """A SITES table: one norm of each decoder layer is folded, the other one and the last of all are refused."""
    rows: list[tuple[Any, ...]] = []
    for layer in (f"model.layers.{layer}" for layer in range(LAYERS)):
        rows.append((f"{layer}.input_norm", True, f"{layer}.mlp.up_proj", 0.0, None))
        rows.append((f"{layer}.post_norm", False, "", None, "its output is also read by Tensor.add"))
    rows.append(("model.norm", False, "", None, "it feeds lm_head"))
    table = pd.DataFrame(rows, columns=["site", "folded", "layers", "offset", "reason"])
    return table.assign(logit_error=3e-7)


def runs(schemes: list[str]) -> pd.DataFrame:
    """A RUN table with a row for each measuring job."""
    jobs: list[tuple[str, str | None]] = [("calibrate", None)]
    jobs += [("smooth", scheme) for scheme in schemes if scheme.endswith("smooth")]
    jobs += [("evaluate", scheme) for scheme in schemes]
    measured: dict[str, Any] = {
        "model": MEASURED,
        "tokens": 6144,
        "startup_s": 3.5,
        "load_s": 0.8,
        "compute_s": 145.2,
        "weights_bytes": 5_000_000,
        "peak_memory_bytes": 900_000_000,
        "device": "cpu",
        "device_name": "A Processor",
        "dtype": "float32",
        "cores": 2,
        "torch_threads": 1,
        "memory_gib": 16.0,
        "system": "Linux x86_64",
        "python": "3.11.7",
        "torch": "2.13.0",
        "transformers": "5.23.0",
    }
    names = [column.name for column in RUN.columns]
    rows = [{"step": step, "scheme": scheme, **measured} for step, scheme in jobs]
    return pd.DataFrame(rows, columns=names)


def _draw(path: Path, title: str) -> None:
    figure, axes = plt.subplots(figsize=(4, 2))
    axes.plot([0, 1, 4, 9])
    axes.set_title(title)
    save(figure, path, 60)


def write_results(config: Config, results: Path) -> None:
    """All files of a finished study that the report reads."""
    schemes, summary = config["study"]["schemes"], results / "summary"
    bases = {scheme: scheme.removesuffix("-smooth") for scheme in schemes if scheme.endswith("-smooth")}
    windows = scores(schemes)
    write_table(PERPLEXITY, summarize_perplexity(windows, "fp"), summary / "perplexity.parquet")
    write_table(GAINS, summarize_gains(windows, bases, "fp"), summary / "smoothing_gains.parquet")
    write_table(RANGES, ranges(), summary / "ranges.parquet")
    write_table(RUN, runs(schemes), summary / "runs.parquet")
    _draw(summary / "perplexity.svg", "perplexity")
    for name in config["study"]["models"]:
        folder = results / name
        (folder / "sources").mkdir(parents=True)
        _manifest(name, random_weights=name == SHAPES).write(folder / "sources/model.json")
    for figure in ("distributions.svg", "surfaces-activation.png", "surfaces-weight.png"):
        _draw(results / MEASURED / "calibration" / figure, figure)
    for scheme in bases:
        folder = results / MEASURED / "smoothing" / scheme
        write_table(SITES, sites(), folder / "sites.parquet")
        _draw(folder / "channels.svg", scheme)
