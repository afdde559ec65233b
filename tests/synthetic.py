"""A small study with made-up results, as the workflow leaves them: tables, figures and manifests, without any model."""

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inferometer.calibration.tables import RANGES
from inferometer.capacity import chapter
from inferometer.capacity import tables as capacity
from inferometer.capacity.catalogue import find_shape
from inferometer.capacity.roofline import roofs, summarize_machine
from inferometer.capacity.storage import kv_bytes_per_token, weight_bytes
from inferometer.chapters import CHAPTERS
from inferometer.evaluation.choices_summary import summarize_accuracy
from inferometer.evaluation.schemes_summary import Measured, summarize_schemes
from inferometer.evaluation.summary import summarize_gains, summarize_perplexity
from inferometer.evaluation.tables import ACCURACY, GAINS, PERPLEXITY, SCHEMES
from inferometer.fundamentals.summary import summarize_digits, summarize_latency
from inferometer.fundamentals.tables import DECODER_CHECKS, DECODER_SPEED, DIGIT_ACCURACY
from inferometer.generation.diversity import diversity, summarize_diversity
from inferometer.generation.loops import find_loop, repeated
from inferometer.generation.summary import summarize_features, summarize_insertions
from inferometer.generation.tables import (
    DIVERSITY,
    FEATURES,
    INSERTED,
    INSERTIONS,
    LOGGED,
    SAMPLES,
    TEMPERATURES,
    WRITTEN,
)
from inferometer.manifest import Manifest
from inferometer.plotting import save
from inferometer.profiling import summary
from inferometer.profiling.tables import (
    BASELINE,
    CACHE_CHECKS,
    CACHE_SPEED,
    KERNEL_SPEED,
    KNEES,
    MEMORY,
    PROFILE,
    SLOPES,
)
from inferometer.rotation.tables import BASIS, PATHS
from inferometer.runs import RUN, Machine
from inferometer.samples import refusal
from inferometer.smoothing.tables import ALPHAS, SITES
from inferometer.tables import write_table
from tests import synthetic_attention, synthetic_claims, synthetic_eviction, synthetic_kv_cache

LAYERS = 4
WINDOWS = 12
ITEMS = 30
COSTS = {
    "fp": 0.0,
    "w8a8": 0.03,
    "w8a8-integer": 0.03,
    "w8a8-smooth": 0.012,
    "w8a8-search": 0.011,
    "int8-bnb": 0.02,
    "w4a4": 6.0,
    "w4a4-smooth": 5.0,
    "w4a4-rotated": 0.4,
}
SKIPPED = {"nf4-bnb": "the library bitsandbytes can't be loaded here"}
EVERY = (*COSTS, *SKIPPED)
BASES = {
    "w8a8-smooth": "w8a8",
    "w8a8-search": "w8a8",
    "w4a4-smooth": "w4a4",
    "w4a4-rotated": "w4a4",
}
SEARCHED, ROTATED, INTEGER = "w8a8-search", "w4a4-rotated", "w8a8-integer"
SEED = 5
MEASURED, SHAPES = "tiny-llama", "shapes-only"
QUESTION_SETS = ("riddles", "school")
MACHINE = {"device": "cpu", "dtype": "float32"}
SECTIONS = (
    "answers",
    "claims",
    "decision",
    "evaluation",
    "calibration",
    "smoothing",
    "rotation",
    "capacity",
    "profiling",
    "kv_cache",
    "generation",
    "attention",
    "fundamentals",
    "machine",
    "sources",
    "reproduce",
    "formulas",
    "glossary",
)
GENERATION_FIGURES = 3
ATTENTION_FIGURES = len(synthetic_attention.FIGURES) + 4 + 1  # and maps of four inputs, and evicted sinks
PROFILE_FIGURES = 1 + 5 + 2  # the roofline, five of the measured model, two of the shape
CACHE_FIGURES = len(synthetic_kv_cache.FIGURES)
BITS, IMAGES = (8, 4, 2), 40
LENGTHS, REPETITIONS = (10, 1000), 3
STORIES = {"tale": "Tell me a <b>story</b>.", "advice": "How?"}
STORY_TOKENS = 128
SAMPLED = {"fact": "What is <i>it</i>?"}
SAMPLE_SEEDS, SAMPLE_TOKENS = (3, 5), 32
TEMPERATURE_NLL = {0.0: 0.5, 0.5: 0.75, 1.0: 1.5}
PROMPTS, NEW_TOKENS = (10, 50, 100, 200, 400, 800), 5

Config = dict[str, Any]


def _schemes() -> Config:
    grids: Config = {
        f"w{bits}a{bits}": {
            "weights": {"bits": bits, "granularity": "per_channel"},
            "activations": {"bits": bits, "granularity": "per_token"},
        }
        for bits in (8, 4)
    }
    smooth = {f"{name}-smooth": {**grid, "smoothing": {"alpha": 0.5}} for name, grid in grids.items()}
    return {
        "fp": {},
        **grids,
        **smooth,
        INTEGER: {**grids["w8a8"], "engine": "integer"},
        SEARCHED: {**grids["w8a8"], "smoothing": {"alpha": "search_per_site", "sites": "all"}},
        ROTATED: {**grids["w4a4"], "rotation": {"seed": SEED}},
        "int8-bnb": {"weights": {"format": "llm_int8"}, "engine": "bitsandbytes"},
        "nf4-bnb": {"weights": {"format": "nf4"}, "engine": "bitsandbytes"},
    }


def study(schemes: Sequence[str] = EVERY, title: str = "A study of nothing", **texts: Any) -> Config:
    """The configuration of a study with a measured model and one with random weights.

    `texts` are added to the entry of the measured model: attribution, licence, caveat.
    """
    file = {"source": "hub", "id": "someone/prose", "revision": "1" * 40, "file_sha256": "2" * 64}
    return {
        "models": {
            MEASURED: {"source": "hub", "id": "someone/tiny-llama", "revision": "0" * 40, **texts},
            SHAPES: {"source": "architecture", "config": {"model_type": "llama"}, "seed": 0},
        },
        "corpora": {"prose": {**file, "file": "prose.txt", "format": "txt"}},
        "question_sets": {name: {**file, "file": f"{name}.jsonl", "format": "hellaswag"} for name in QUESTION_SETS},
        "image_sets": {"sketches": {"source": "scikit-learn", "licence": "CC0-1.0", "attribution": "A Pen"}},
        "schemes": _schemes(),
        "study": {
            "title": title,
            "models": [MEASURED, SHAPES],
            "schemes": list(schemes),
            "chapters": list(CHAPTERS),
            "keep_going": False,
        },
        "calibration": {
            "corpus": "prose",
            "window_tokens": 512,
            "max_windows": 8,
            "rounding_windows": 4,
            "layers": ["first", "middle", "last"],
        },
        "evaluation": {
            "corpus": "prose",
            "protocol": "smoothquant",
            "window_tokens": 512,
            "max_windows": WINDOWS,
            "choices": {"question_sets": list(QUESTION_SETS), "max_items": ITEMS},
            "sensitivity": {"schemes": [name for name in ("w4a4",) if name in schemes], "window_tokens": 64},
            "reference": "fp",
        },
        "capacity": {
            "models": ["llama-3-8b", "smollm2-135m"],
            "gpus": ["h100-80gb", "t4"],
            "context_tokens": [1024, 8192],
            "kv_bits": [16, 4],
            "gpu_counts": [1, 2],
            "dtype": "bfloat16",
            "overhead_gib": 0,
            "reserve": 0,
            "workspace_tokens": 0,
            "intensity": {"context_tokens": [512, 1024], "batches": [1, 8]},
        },
        "profiling": {
            "schemes": ["fp", INTEGER],
            "dtypes": ["float32"],
            "repetitions": 3,
            "seconds": 0,
            "latency": {"prompt_tokens": list(PROMPTS), "batches": [1], "new_tokens": NEW_TOKENS},
            "memory": {"prompt_tokens": 4, "new_tokens": [8, 16, 24]},
            "cache": {"prompt_tokens": [10, 1000], "new_tokens": NEW_TOKENS},
            "kernels": {"tokens": [1024, 2048], "dtypes": ["float32"]},
            "baseline": {"prompts": {"greeting": "Hello"}, "batches": [1, 4], "new_tokens": NEW_TOKENS},
            "architectures": {"prompt_tokens": list(PROMPTS), "new_tokens": [8, 16, 24]},
        },
        "generation": {
            "prompts": STORIES,
            "new_tokens": STORY_TOKENS,
            "insertions": {
                "corpus": "prose",
                "context_tokens": 64,
                "contexts": 6,
                "words": {"rare": ["petrichor", "tmesis"], "common": ["river"]},
            },
            "sampling": {
                "prompts": SAMPLED,
                "temperatures": list(TEMPERATURE_NLL),
                "seeds": list(SAMPLE_SEEDS),
                "new_tokens": SAMPLE_TOKENS,
                "top_p": 1.0,
                "top_k": 0,
            },
        },
        "kv_cache": synthetic_kv_cache.settings(("fp", INTEGER), "prose", QUESTION_SETS[0]),
        "attention": {
            **synthetic_attention.settings("prose", QUESTION_SETS[0]),
            "eviction": synthetic_eviction.settings("prose"),
        },
        "fundamentals": {
            "digits": {"image_set": "sketches", "epochs": 2, "seeds": [0, 1], "bits": list(BITS)},
            "decoder": {"tokens": list(LENGTHS), "repetitions": REPETITIONS},
        },
        "claims": [],
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


def scores(schemes: Sequence[str]) -> dict[tuple[str, str], pd.DataFrame]:
    """WINDOWS tables of the measured model: text that is hard is hard under all schemes. Skipped ones have no rows."""
    difficulty = np.random.default_rng(0).normal(3.2, 0.3, WINDOWS)
    tables = {}
    for scheme in schemes:
        noise = np.random.default_rng(1).normal(1, 0.1, WINDOWS)
        table = pd.DataFrame(
            {"window": range(WINDOWS), "tokens": 511, "nll": difficulty + COSTS.get(scheme, 0) * noise}
        ).assign(corpus="prose", protocol="smoothquant", **MACHINE)
        tables[MEASURED, scheme] = table.head(0) if scheme in SKIPPED else table
    return tables


def _fidelity(cost: float) -> pd.DataFrame:
    """A FIDELITY table of a few tokens a window."""
    places = [(window, position) for window in range(WINDOWS) for position in range(1, 5)]
    table = pd.DataFrame(places, columns=["window", "position"])
    divergence = cost * (1 + 0.1 * table["window"] + 0.01 * table["position"])
    return table.assign(nll=3.2 + cost, kl_divergence=divergence, same_top_token=table["position"] > 4 * min(cost, 0.9))


def _choices(cost: float) -> pd.DataFrame:
    """A CHOICES table: the dearer a scheme, the more questions it gets wrong."""
    places = [(name, item, ending) for name in QUESTION_SETS for item in range(ITEMS) for ending in range(3)]
    table = pd.DataFrame(places, columns=["question_set", "item", "ending"])
    correct = table["ending"] == table["item"] % 3
    known = table["item"] < ITEMS * (0.7 - 0.05 * min(cost, 6.0))
    score = np.where(correct == known, -10.0, -12.0)
    return table.assign(log_likelihood=score, tokens=4, characters=20, is_correct=correct, **MACHINE)


def _layers(cost: float) -> pd.DataFrame:
    """A LAYERS table; the float model has no rounded layer."""
    names = [f"model.layers.{layer}.mlp.up_proj" for layer in range(LAYERS)] if cost else []
    noise = {"weight_sqnr_db": 40 - 3 * cost, "output_sqnr_db": 35 - 4 * cost}
    return pd.DataFrame({"layer": names}).assign(**noise, stored_bytes=1000, float_bytes=4000, kernel=None)


def _storage(scheme: str) -> pd.DataFrame:
    """A STORAGE table; fewer bits take fewer bytes."""
    engine = {"fp": "float", INTEGER: "integer", **dict.fromkeys(("int8-bnb", "nf4-bnb"), "bitsandbytes")}
    rounded = {"fp": 0, "w4": 500_000}.get(scheme[:2], 1_000_000)
    row = {
        "engine": engine.get(scheme, "simulated"),
        "kernels": "int8 product" if scheme == INTEGER else None,
        "rounded_layers": LAYERS if rounded else 0,
        "rounded_weights": 1_000_000 if rounded else 0,
        "rounded_bytes": rounded,
        "float_bytes": 1_000_000 if rounded else 5_000_000,
        "weights_bytes": rounded + 1_000_000 if rounded else 5_000_000,
        "outlier_share": 0.004 if scheme == "int8-bnb" else None,
        "skipped": SKIPPED.get(scheme),
    }
    if scheme in SKIPPED:
        row |= dict.fromkeys((name for name in row if name.endswith(("layers", "weights", "bytes"))), 0)
    return pd.DataFrame([row])


def cells(schemes: Sequence[str]) -> dict[tuple[str, str], Measured]:
    """What else was measured of the same model."""
    found = {}
    for scheme in schemes:
        cost = COSTS.get(scheme, 0)
        fidelity, choices = _fidelity(cost), _choices(cost)
        if scheme in SKIPPED:
            fidelity, choices = fidelity.head(0), choices.head(0)
        found[MEASURED, scheme] = Measured(fidelity, choices, _layers(cost), _storage(scheme))
    return found


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


def sites(scheme: str = "w8a8-smooth") -> pd.DataFrame:
    """A SITES table: one norm of each decoder layer is folded, the other one and the last of all are refused.

    The searched scheme also has a linear layer that is folded in each.
    """
    rows: list[tuple[Any, ...]] = []
    for layer in (f"model.layers.{layer}" for layer in range(LAYERS)):
        rows.append((f"{layer}.input_norm", True, f"{layer}.mlp.up_proj", 0.0, None, None, None, None))
        if scheme == SEARCHED:
            rows.append((f"{layer}.mlp.up_proj", True, f"{layer}.mlp.down_proj", None, 0, 48, 16, None))
        rows.append((f"{layer}.post_norm", False, "", None, None, None, None, "its output is also read by Tensor.add"))
    rows.append(("model.norm", False, "", None, None, None, None, "it feeds lm_head"))
    names = ["site", "folded", "layers", "offset", "first_row", "rows", "head_dim", "reason"]
    table = pd.DataFrame(rows, columns=names).astype(dict.fromkeys(("first_row", "rows", "head_dim"), "Int64"))
    return table.reset_index(names="place").assign(logit_error=3e-7)


def alphas() -> pd.DataFrame:
    """The ALPHAS table of the searched scheme: norms are best at 0.4, the linear layers between others at 0.7."""
    rows = []
    for site in sites(SEARCHED).query("folded")["site"]:
        best = 0.4 if site.endswith("norm") else 0.7
        for alpha in (step / 10 for step in range(11)):
            error = 0.001 + 0.01 * (alpha - best) ** 2
            rows.append({"site": site, "alpha": alpha, "error": error, "chosen": alpha == best})
    return pd.DataFrame(rows)


def paths() -> pd.DataFrame:
    """A PATHS table: an embedding, and of each decoder layer a norm, two readers, two writers and what these read."""
    rows: list[tuple[Any, ...]] = [("embedding", "model.embed_tokens", None, None, None, None, None)]
    for layer in (f"model.layers.{layer}" for layer in range(LAYERS)):
        norm, up, value, out, down = (f"{layer}.{name}" for name in ("norm", "up", "value", "out", "down"))
        rows += [("reader", name, norm, None, None, None, None) for name in (up, value)]
        rows.append(("norm", norm, None, 0.0, None, None, None))
        rows += [("writer", name, None, None, None, None, None) for name in (out, down)]
        rows.append(("value", value, out, None, 0, 32, 16))
        rows.append(("online", down, None, None, None, None, None))
    names = ["role", "module", "partner", "offset", "first_row", "rows", "head_dim"]
    table = pd.DataFrame(rows, columns=names).astype(dict.fromkeys(("first_row", "rows", "head_dim"), "Int64"))
    return table.reset_index(names="place").assign(logit_error=4e-7)


def basis(own: float = 21.4, rotated: float = 21.9) -> pd.DataFrame:
    """A BASIS table of layers with these medians, in decibels; what is far off are single layers."""
    rows = [(f"model.layers.{layer}.up", own, rotated) for layer in range(LAYERS)]
    rows += [("model.layers.0.down", 5.0, np.inf), ("model.layers.0.value", np.inf, 5.0)]
    return pd.DataFrame(rows, columns=["layer", "weight_sqnr_db", "rotated_weight_sqnr_db"])


def sensitivity() -> pd.DataFrame:
    """A SENSITIVITY table: later layers matter less, and what lies outside of the decoder's blocks hardly at all."""
    rows = [
        (f"model.layers.{layer}.{kind}", cost / (layer + 1))
        for layer in range(LAYERS)
        for kind, cost in (("self_attn.q_proj", 0.01), ("mlp.down_proj", 0.5))
    ]
    table = pd.DataFrame([*rows, ("model.project_out", 1e-5)], columns=["layer", "kl_divergence"])
    return table.assign(tokens=64)


def digits() -> pd.DataFrame:
    """A DIGITS table: float networks read nine images of ten, 8 bits change nothing, 4 bits little and 2 bits much."""
    places = [
        (seed, replaced, bits, item)
        for seed in (0, 1)
        for replaced in ("last", "all")
        for bits in BITS
        for item in range(IMAGES)
    ]
    table = pd.DataFrame(places, columns=["seed", "replaced", "bits", "item"])
    label = table["item"] % 10
    float_prediction = label.where(table["item"] % 10 != table["seed"], (label + 1) % 10)
    lost = (table["bits"] == 2) & (table["item"] % 4 != 0) | (table["bits"] == 4) & (table["item"] == 20)
    return table.assign(
        label=label,
        float_prediction=float_prediction,
        prediction=float_prediction.where(~lost, (label + 2) % 10),
        output_power=10.0,
        output_mse=10.0 / 4.0 ** table["bits"],
        **MACHINE,
    )


def decoder_checks() -> pd.DataFrame:
    """A DECODER_CHECKS table in which everything holds."""
    names = ("cache", "sequential", "causality", "attention")
    rows = [
        {"check": name, "case": case, "kind": kind} for name in names for case, kind in enumerate(("fixed", "random"))
    ]
    table = pd.DataFrame(rows).assign(tokens=11, difference=1e-6, tolerance=1e-4, holds=True)
    return table.assign(**MACHINE)


def decoder_latency() -> pd.DataFrame:
    """A DECODER_LATENCY table: the cache gains more the longer the text, and one sample of each arm is contaminated."""
    rows = [
        {
            "varied": varied,
            "prompt_tokens": 10 if varied == "new_tokens" else length,
            "new_tokens": length if varied == "new_tokens" else 20,
            "cache": cache,
            "repetition": repetition,
            "wall_ms": (length if cache else length * (1 + length / 100)) * (9.0 if repetition == 2 else 1.0),
            "contaminated": repetition == 2,
        }
        for varied in ("new_tokens", "prompt_tokens")
        for length in LENGTHS
        for cache in (False, True)
        for repetition in range(REPETITIONS)
    ]
    table = pd.DataFrame(rows).assign(calls=3, foreign_load=0.01, **MACHINE)
    return table.assign(cpu_ms=table["wall_ms"] * 0.9)


def law_ms(layers: int, tokens: int, repetition: int) -> float:
    """Milliseconds that grow with layers, and with tokens beyond 100."""
    return (5 + 2 * layers) * (1 + max(0, tokens - 100) / 50) * (1 + 0.001 * repetition)


def latency(layers: Sequence[int] = (1, 2), schemes: Sequence[str] = ("fp",)) -> pd.DataFrame:
    """A LATENCY table by `law_ms`; a decoded token takes a tenth of a prefill."""
    rows = []
    for scheme, count, tokens, repetition in itertools.product(schemes, layers, PROMPTS, range(3)):
        wall = law_ms(count, tokens, repetition)
        common: dict[str, Any] = {"scheme": scheme, "dtype": "float32", "layers": count, "prompt_tokens": tokens}
        common |= {"batch": 1, "new_tokens": NEW_TOKENS, "repetition": repetition, "foreign_load": 0.0}
        common |= {"contaminated": False, "cpu_ms": 2 * wall, "reason": None}
        rows.append({**common, "phase": "prefill", "calls": 1, "wall_ms": wall})
        rows.append({**common, "phase": "decode", "calls": NEW_TOKENS - 1, "wall_ms": wall / 10})
    samples = pd.DataFrame(rows)
    whole = samples.assign(wall_ms=samples["wall_ms"] * samples["calls"], calls=1)
    cell = [column for column in whole.columns if column not in ("phase", "wall_ms", "reason")]
    summed = whole.groupby(cell, as_index=False)[["wall_ms"]].sum()
    both = pd.concat([samples, summed.assign(phase="end_to_end", reason=None)], ignore_index=True)
    return both.assign(kernels=None, device="cpu")


def memory(layers: Sequence[int], kv_bytes_per_layer: int) -> pd.DataFrame:
    """A MEMORY table: the cache grows as theory says, the process by a hundredth more, the peak half as fast again."""
    rows = []
    for count, new_tokens in itertools.product(layers, (8, 16, 24)):
        held = (new_tokens + 3) * count * kv_bytes_per_layer
        rows.append(
            {
                "layers": count,
                "new_tokens": new_tokens,
                "context_tokens": new_tokens + 3,
                "cache_bytes": held,
                "memory_bytes": 10**8 + held * 101 // 100,
                "peak_bytes": 2 * 10**8 + held * 3 // 2,
            }
        )
    return pd.DataFrame(rows).assign(scheme="fp", dtype="float32", device="cpu", reason=None)


def cache() -> pd.DataFrame:
    """A CACHE table: with the cache, writing after 10 tokens takes half as long, and after 1,000 a fifth."""
    rows = [
        {"prompt_tokens": tokens, "cache": kept, "repetition": repetition, "wall_ms": wall * (1 + 0.01 * repetition)}
        for tokens, kept, wall in ((10, False, 100.0), (10, True, 50.0), (1000, False, 5000.0), (1000, True, 1000.0))
        for repetition in range(3)
    ]
    table = pd.DataFrame(rows).assign(new_tokens=NEW_TOKENS, calls=1, foreign_load=0.0, contaminated=False, **MACHINE)
    return table.assign(cpu_ms=table["wall_ms"], reason=None)


def cache_checks() -> pd.DataFrame:
    """A CACHE_CHECKS table in which both ways agree."""
    rows = [{"prompt_tokens": tokens, "difference": 2e-5, "largest_logit": 20.0} for tokens in (10, 1000)]
    kept = {"new_tokens": NEW_TOKENS, "same_tokens": True, "tolerance": 1e-4, "reason": None}
    return pd.DataFrame(rows).assign(**kept, **MACHINE)


def kernels() -> pd.DataFrame:
    """A KERNELS table: the fused kernel is four times as fast and needs a tenth of the memory; one is not there."""
    rows = []
    for tokens, kernel in itertools.product((1024, 2048), ("standard", "flash", "cudnn")):
        cell = {"kernel": kernel, "tokens": tokens, "output_bytes": 2304 * tokens, "score_bytes": 36 * tokens**2}
        if kernel == "cudnn":
            rows.append({**cell, **refusal("this device has no such kernel"), "extra_bytes": None, "difference": None})
            continue
        wall = (tokens / 512) ** 2 * (4 if kernel == "standard" else 1)
        extra = 80 * tokens**2 // (1 if kernel == "standard" else 10)
        for repetition in range(2):
            sample = {"repetition": repetition, "calls": 5, "wall_ms": wall, "cpu_ms": wall, "foreign_load": 0.0}
            own = {"contaminated": False, "reason": None, "extra_bytes": extra, "difference": 1e-6}
            rows.append({**cell, **sample, **own})
    return pd.DataFrame(rows).assign(**MACHINE)


def baseline() -> pd.DataFrame:
    """A BASELINE table of one prompt, alone and four times; what was written would be markup if it were let."""
    rows = [
        {"batch": batch, "latency_ms": 1000.0, "tokens_per_s": 5.0 * batch, "peak_bytes": 9 * 10**8} for batch in (1, 4)
    ]
    kept: dict[str, Any] = {"prompt": "greeting", "prompt_tokens": 3, "new_tokens": NEW_TOKENS, "first_token_ms": 90.0}
    kept |= {"memory_bytes": 3 * 10**8, "foreign_load": 0.0, "contaminated": False, "joules": None, "reason": None}
    return pd.DataFrame(rows).assign(**kept, no_energy="there is no counter", text="<b>Hello</b> to you", **MACHINE)


def write_profiling(config: Config, results: Path) -> None:
    """What the chapter profiling leaves of the measured model and of the shape."""
    shape, summary_folder = find_shape("smollm2-135m"), results / "summary"
    limits = roofs(machine())
    theories = {
        MEASURED: summary.Theory(shape, None, config["schemes"], limits),
        SHAPES: summary.Theory(shape, 32, config["schemes"], limits),
    }
    latencies = {MEASURED: latency([30], ["fp", INTEGER]), SHAPES: latency()}
    each = kv_bytes_per_token(shape, 32) // shape.layers
    memories = {MEASURED: memory([30], each), SHAPES: memory([1, 2], each)}
    profile = summary.profile(latencies, theories)
    write_table(PROFILE, profile, summary_folder / "profiling.parquet")
    write_table(KNEES, summary.knees(latencies, profile), summary_folder / "knees.parquet")
    write_table(SLOPES, summary.slopes(memories, theories), summary_folder / "memory.parquet")
    write_table(CACHE_SPEED, summary.cache_speed({MEASURED: cache()}), summary_folder / "cache.parquet")
    write_table(KERNEL_SPEED, summary.kernel_speed({MEASURED: kernels()}), summary_folder / "kernels.parquet")
    _draw(summary_folder / "roofline.svg", "roofline")
    for model in (MEASURED, SHAPES):
        folder = results / model / "profiling"
        write_table(MEMORY, memories[model], folder / "memory.parquet")
        for figure in ("latency", "memory") + (("cache", "kernels", "baseline") if model == MEASURED else ()):
            _draw(folder / f"{figure}.svg", figure)
    write_table(CACHE_CHECKS, cache_checks(), results / MEASURED / "profiling/cache_checks.parquet")
    write_table(BASELINE, baseline(), results / MEASURED / "profiling/baseline.parquet")


def features() -> pd.DataFrame:
    """A FEATURES table: after the first prompt the second half goes round in a loop of five tokens, sure of itself."""
    parts = []
    for prompt, text in STORIES.items():
        asked = [f" {word}" if place else word for place, word in enumerate(text.split())]
        loop = prompt == next(iter(STORIES))
        new = [100 + (place % 5 if loop and place >= 64 else 10 + place) for place in range(STORY_TOKENS)]
        length = len(asked) + STORY_TOKENS
        known = [0.2 if loop and place >= 70 else 1.5 for place in range(STORY_TOKENS)]
        table = pd.DataFrame({"prompt": prompt, "position": range(length), "token": [*range(len(asked)), *new]})
        parts.append(
            table.assign(
                text=[*asked, *(f" {token}" for token in new)],
                generated=table["position"] >= len(asked),
                own=table["position"] < len(asked),
                entropy=[np.nan, *[2.0] * (len(asked) - 1), *known],
                rarity=[np.nan, *[3.0] * (len(asked) - 1), *(value / 2 for value in known)],
                saliency_norm=5.0,
                gradient_input=-0.5,
                first_saliency_norm=[*(10.0 - place for place in range(len(asked))), *[np.nan] * STORY_TOKENS],
                received_attention=[*[0.004] * (length - 1), np.nan],
                repeats=[False] * len(asked) + repeated(new),
            )
        )
    return pd.concat(parts, ignore_index=True)


def written() -> pd.DataFrame:
    """The WRITTEN table of the same tokens; what was written would be markup if it were let."""
    rows = []
    for prompt, own in features().groupby("prompt"):
        tokens = own[own["generated"]]["token"].tolist()
        loop = find_loop(tokens)
        rows.append(
            {
                "prompt": prompt,
                "prompt_tokens": len(own) - len(tokens),
                "new_tokens": len(tokens),
                "loop_after": loop.start if loop else None,
                "loop_period": loop.period if loop else None,
                "ended_after": None if loop else 100,
                "no_attention": None if loop else "it keeps that to itself",
            }
        )
    numbers = dict.fromkeys(("ended_after", "loop_after", "loop_period"), "Int64")
    return pd.DataFrame(rows).astype(numbers).assign(text="<b>Once</b> upon a time", **MACHINE)


def samples() -> pd.DataFrame:
    """A SAMPLES table: cold texts turn in circles, warm ones share nothing; what was written would be markup."""
    rows = []
    for number, prompt in enumerate([*STORIES, *SAMPLED]):
        for temperature, nll in TEMPERATURE_NLL.items():
            for place, seed in enumerate(SAMPLE_SEEDS if temperature else SAMPLE_SEEDS[:1]):
                circle = (4, 16, SAMPLE_TOKENS)[list(TEMPERATURE_NLL).index(temperature)] - number
                ids = [1000 * place * (temperature == 1) + token % circle for token in range(SAMPLE_TOKENS)]
                rows.append(
                    {
                        "prompt": prompt,
                        "temperature": temperature,
                        "seed": seed,
                        "text": f"<i>{prompt}</i>\n at {temperature} with {seed} " + "long " * 50,
                        "token_ids": " ".join(map(str, ids)),
                        "nll": nll + 0.1 * number,
                        "entropy": 2.0 + temperature,
                        "sampling_entropy": 3.0 * temperature,
                        "repeated": sum(repeated(ids)) / len(ids),
                    }
                )
    ended = pd.Series([None] * len(rows), dtype="Int64")
    return pd.DataFrame(rows).assign(tokens=SAMPLE_TOKENS, ended_after=ended, **MACHINE)


def insertions() -> pd.DataFrame:
    """An INSERTIONS table: a rare word begins as rarely as all of a common one is, and two easy tokens follow."""
    rows = [
        {"kind": kind, "word": word, "context": context, "word_tokens": tokens, "first_rarity": 12 + context / 10}
        for kind, word, tokens in (("rare", "petrichor", 3), ("rare", "tmesis", 3), ("common", "river", 1))
        for context in range(6)
    ]
    table = pd.DataFrame(rows)
    total = table["first_rarity"] + (table["word_tokens"] - 1) * (2 + (table["word"] == "tmesis"))
    table = table.assign(
        word_rarity=total, rarity=total / table["word_tokens"], stood_rarity=4.0 + table["context"] / 5
    )
    return table.assign(after_rarity=3.5, stood_after_rarity=3.25, **MACHINE)


def write_generation(results: Path) -> None:
    """What the chapter generation leaves of the measured model."""
    folder, summary_folder = results / MEASURED / "generation", results / "summary"
    write_table(FEATURES, features(), folder / "features.parquet")
    write_table(WRITTEN, written(), folder / "written.parquet")
    write_table(INSERTIONS, insertions(), folder / "insertions.parquet")
    write_table(LOGGED, summarize_features({MEASURED: features()}), summary_folder / "generation.parquet")
    write_table(INSERTED, summarize_insertions({MEASURED: insertions()}), summary_folder / "insertions.parquet")
    write_table(SAMPLES, samples(), folder / "samples.parquet")
    write_table(DIVERSITY, diversity(samples()), folder / "diversity.parquet")
    temperatures = summarize_diversity({MEASURED: diversity(samples())})
    write_table(TEMPERATURES, temperatures, summary_folder / "diversity.parquet")
    for figure in ("features", "diversity", "insertions"):
        _draw(folder / f"{figure}.svg", figure)


def runs(schemes: Sequence[str]) -> pd.DataFrame:
    """A RUN table with a row for each measuring job."""
    jobs: list[tuple[str, str | None]] = [("calibrate", None)]
    jobs += [("smooth", scheme) for scheme in schemes if scheme in BASES and scheme != ROTATED]
    jobs += [(f"rotate (seed {SEED})", None)] * (ROTATED in schemes)
    jobs += [("evaluate", scheme) for scheme in schemes]
    jobs += [("measure_sensitivity", "w4a4")] * ("w4a4" in schemes)
    measured: dict[str, Any] = {
        "model": MEASURED,
        "tokens": 6144,
        "startup_s": 3.5,
        "load_s": 0.8,
        "compute_s": 145.2,
        "weights_bytes": 5_000_000,
        "peak_memory_bytes": 900_000_000,
        "dtype": "float32",
        **asdict(THIS),
    }
    names = [column.name for column in RUN.columns]
    rows = [
        {
            "step": step,
            "scheme": scheme,
            **measured,
            "forward_s": 12.0 if step == "evaluate" and scheme not in SKIPPED else None,
        }
        for step, scheme in jobs
    ]
    return pd.DataFrame(rows, columns=names)


def stored(schemes: Sequence[str]) -> pd.DataFrame:
    """A STORED table: one buffer more was measured than predicted; NF4 is not predicted, and was skipped."""
    shape = find_shape("smollm2-135m")
    entries = _schemes()
    sizes = {
        name: 0 if name == "nf4-bnb" else weight_bytes(shape, "float32", entries[name]).total_bytes + 256
        for name in schemes
    }
    measured = {(MEASURED, name): chapter.Measured(size, SKIPPED.get(name)) for name, size in sizes.items()}
    return chapter.stored({MEASURED: shape}, {MEASURED: "float32"}, entries, measured)


THIS = Machine("cpu", "A Processor", "avx2 avx512_vnni", 2, 2, 23.5, "Linux x86_64", "3.11.7", "2.13.0", "5.23.0")
RATES = {
    ("multiply", "float32"): 1e11,
    ("multiply", "bfloat16"): 1e12,
    ("multiply", "int8"): 2e12,
    ("read", "float32"): 2e10,
    ("copy", "float32"): 1e10,
}


def machine_samples() -> pd.DataFrame:
    """A MACHINE_SAMPLES table of RATES: the first sample of each arm is contaminated and slow."""
    rows = [
        (what, dtype, 1e9, repetition, 1e12 / rate * (3 if repetition == 0 else 1), repetition == 0)
        for (what, dtype), rate in RATES.items()
        for repetition in range(REPETITIONS)
    ]
    table = pd.DataFrame(rows, columns=["what", "dtype", "work", "repetition", "wall_ms", "contaminated"])
    kernels = table["dtype"].map({"int8": "int_mm"})
    timed = table.assign(calls=3, cpu_ms=2 * table["wall_ms"], foreign_load=0.01, kernel=kernels, reason=None)
    return timed.assign(device=THIS.device, device_name=THIS.device_name, torch_threads=THIS.torch_threads)


def machine() -> pd.DataFrame:
    """A MACHINE table: 100 Gop/s in float32, ten times as many in bfloat16, twenty times in int8, and 20 GB/s."""
    return summarize_machine(machine_samples(), THIS)


def write_capacity(config: Config, folder: Path) -> None:
    """What the chapter capacity leaves of the models that the configuration names, of the measured one, and of the
    machine, whose table lies beside the chapter's folder.
    """
    settings = config["capacity"]
    shapes = {name: find_shape(name) for name in settings["models"]} | {MEASURED: find_shape("smollm2-135m")}
    write_table(capacity.PARAMETERS, chapter.parameters(shapes), folder / "parameters.parquet")
    write_table(capacity.WEIGHTS, chapter.weights(shapes, settings["dtype"]), folder / "weights.parquet")
    write_table(capacity.REQUESTS, chapter.requests(shapes, settings), folder / "requests.parquet")
    write_table(capacity.INTENSITY, chapter.intensity(shapes, settings), folder / "intensity.parquet")
    write_table(capacity.RIDGES, chapter.ridges(), folder / "ridges.parquet")
    write_table(capacity.STUDIES, chapter.studies(), folder / "studies.parquet")
    write_table(capacity.STORED, stored(config["study"]["schemes"]), folder / "stored.parquet")
    write_table(capacity.MACHINE, machine(), folder.parent / "machine.parquet")
    for figure in ("batches", "cache", "intensity"):
        _draw(folder / f"{figure}.svg", figure)


def _draw(path: Path, title: str) -> None:
    figure, axes = plt.subplots(figsize=(4, 2))
    axes.plot([0, 1, 4, 9])
    axes.set_title(title)
    save(figure, path, 60)


def write_results(config: Config, results: Path) -> None:
    """All files of a finished study that the report reads."""
    schemes, folder_of_summary = config["study"]["schemes"], results / "summary"
    bases = {scheme: base for scheme, base in BASES.items() if {scheme, base} <= set(schemes)}
    windows, tables = scores(schemes), cells(schemes)
    perplexity = summarize_perplexity(windows, "fp")
    choices = {cell: measured.choices for cell, measured in tables.items()}
    write_table(PERPLEXITY, perplexity, folder_of_summary / "perplexity.parquet")
    write_table(GAINS, summarize_gains(windows, bases, "fp"), folder_of_summary / "gains.parquet")
    write_table(SCHEMES, summarize_schemes(tables, perplexity, "fp"), folder_of_summary / "schemes.parquet")
    write_table(ACCURACY, summarize_accuracy(choices, "fp"), folder_of_summary / "accuracy.parquet")
    write_table(RANGES, ranges(), folder_of_summary / "ranges.parquet")
    write_table(RUN, runs(schemes), folder_of_summary / "runs.parquet")
    write_capacity(config, results / "capacity")
    write_profiling(config, results)
    synthetic_kv_cache.write(MEASURED, ("fp", INTEGER), results, _draw)
    write_generation(results)
    synthetic_attention.write(MEASURED, config["attention"], results, _draw)
    synthetic_eviction.write(MEASURED, results, _draw)
    write_table(DIGIT_ACCURACY, summarize_digits(digits()), folder_of_summary / "digits.parquet")
    write_table(DECODER_SPEED, summarize_latency(decoder_latency()), folder_of_summary / "decoder.parquet")
    write_table(DECODER_CHECKS, decoder_checks(), results / "fundamentals/decoder_checks.parquet")
    for figure in ("digits", "decoder"):
        _draw(results / "fundamentals" / f"{figure}.svg", figure)
    for figure in ("perplexity", "pareto"):
        _draw(folder_of_summary / f"{figure}.svg", figure)
    for name in config["study"]["models"]:
        folder = results / name
        (folder / "sources").mkdir(parents=True)
        _manifest(name, random_weights=name == SHAPES).write(folder / "sources/model.json")
    own = results / MEASURED
    for figure in ("distributions.svg", "surfaces-activation.png", "surfaces-weight.png"):
        _draw(own / "calibration" / figure, figure)
    for scheme in (scheme for scheme in schemes if "smoothing" in config["schemes"][scheme]):
        folder = own / "smoothing" / scheme
        write_table(SITES, sites(scheme), folder / "sites.parquet")
        _draw(folder / "channels.svg", scheme)
        if scheme == SEARCHED:
            write_table(ALPHAS, alphas(), folder / "alphas.parquet")
            _draw(folder / "alphas.svg", scheme)
    if ROTATED in schemes:
        write_table(PATHS, paths(), own / f"rotation/{SEED}/paths.parquet")
        write_table(BASIS, basis(), own / f"rotation/{SEED}/basis.parquet")
    for scheme in config["evaluation"]["sensitivity"]["schemes"]:
        _draw(own / "evaluation" / scheme / "sensitivity.svg", scheme)
    synthetic_claims.write(MEASURED, results)


def add_measured_model(config: Config, results: Path, name: str) -> None:
    """Give a finished study a second measured model: all that the first one has, under another name."""
    config["models"][name] = config["models"][MEASURED]
    config["study"]["models"].insert(1, name)
    shared = list(results.rglob("*.parquet"))
    shutil.copytree(results / MEASURED, results / name)
    manifest = results / name / "sources/model.json"
    replace(Manifest.read(manifest), name=name).write(manifest)
    for path in shared:
        table = pq.read_table(path)
        if "model" in table.column_names and MEASURED not in path.parts:
            own = table.filter(pc.equal(table["model"], MEASURED))
            place = table.column_names.index("model")
            renamed = own.set_column(place, table.schema.field("model"), pa.array([name] * len(own), pa.string()))
            pq.write_table(pa.concat_tables([table, renamed]), path)
