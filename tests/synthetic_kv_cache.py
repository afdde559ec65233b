"""Made-up results of the chapter on KV caches: raw tables whose differences are planted, and what sums them up."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inferometer.kv_cache import summary
from inferometer.kv_cache.tables import CACHE_LENGTHS, CACHE_PAIRS, CACHE_TRACE, KV_CACHE
from inferometer.samples import refusal
from inferometer.tables import write_table

GRIDS = {"keys": "per_channel", "group_size": 64}
CHOSEN = {"widths": [2, 3, 4], "average_bits": 3, **GRIDS}
POLICIES: dict[str, dict[str, Any]] = {
    "float": {},
    "static-4": {"bits": 4, **GRIDS},
    "static-3": {"bits": 3, **GRIDS},
    "static-2": {"bits": 2, **GRIDS},
    "entropy": {"feature": "entropy", **CHOSEN},
    "random": {"feature": "random", **CHOSEN},
    "quanto-4": {"library": "quanto", "bits": 4},
}
COSTS = {"float": 0.0, "static-4": 0.002, "static-3": 0.02, "static-2": 0.4, "entropy": 0.03, "random": 0.05}
COSTS["quanto-4"] = 0.004
STORED_BITS = {"float": 32.0, "static-4": 4.7, "static-3": 3.7, "static-2": 2.7, "entropy": 3.72, "random": 3.71}
STORED_BITS["quanto-4"] = 6.5
REASON = "the library optimum-quanto can't be loaded here"
CELLS = 2 * 30 * 3 * 64  # numbers of a token's keys and values
PROMPTS, WINDOWS, ITEMS, REPETITIONS = (128, 512, 2048), 8, 30, 3
MACHINE = {"device": "cpu", "dtype": "float32"}
FIGURES = ("accuracy", "bytes", "bits")

Table = pd.DataFrame


def settings(schemes: tuple[str, ...], corpus: str, question_set: str) -> dict[str, Any]:
    """The section of the configuration that asks for all policies under each of the schemes."""
    return {
        "policies": POLICIES,
        "schemes": {scheme: list(POLICIES) for scheme in schemes},
        "corpus": corpus,
        "window_tokens": 512,
        "max_windows": WINDOWS,
        "context_tokens": 255,
        "step_tokens": 16,
        "choices": {"question_sets": [question_set], "max_items": ITEMS, "shots": 0},
        "prompt_tokens": list(PROMPTS),
        "repetitions": REPETITIONS,
        "seconds": 0,
        "trace": {"prompt": "The quick brown fox", "new_tokens": 100},
    }


def perplexity(policy: str, scheme: str) -> Table:
    """CACHE_PERPLEXITY under one scheme: windows that are hard suffer more, under all policies alike."""
    places = [(window, position) for window in range(WINDOWS) for position in range(1, 9)]
    table = pd.DataFrame(places, columns=["window", "position"])
    cost = COSTS[policy] * (1 + 0.1 * table["window"]) * (1 if scheme == "fp" else 1.5)
    nll = (3 + 0.1 * table["window"] + 0.5 * cost).astype("float32")
    same = (table["position"] / 9) > 2 * cost
    return table.assign(scheme=scheme, nll=nll, kl_divergence=cost.astype("float32"), same_top_token=same)


def choices(policy: str, scheme: str) -> Table:
    """CACHE_CHOICES under one scheme: the dearer a policy, the more questions it gets wrong."""
    places = [(item, ending) for item in range(ITEMS) for ending in range(3)]
    table = pd.DataFrame(places, columns=["item", "ending"])
    correct = table["ending"] == table["item"] % 3
    known = table["item"] < ITEMS * (0.6 - COSTS[policy])
    kept: dict[str, Any] = {"question_set": "riddles", "context_tokens": 20, "tokens": 4, "characters": 20}
    score = np.where(correct == known, -10.0, -12.0)
    return table.assign(log_likelihood=score, is_correct=correct, scheme=scheme, **kept, **MACHINE)


def latency(policy: str, scheme: str) -> Table:
    """CACHE_LATENCY under one scheme: packed caches take longer, and all take longer after longer prompts."""
    rows: list[dict[str, Any]] = []
    for tokens in PROMPTS:
        wall = 20 + tokens / 100 * (1 if policy == "float" else 2)
        for repetition in range(REPETITIONS):
            own: dict[str, Any] = {"wall_ms": wall + repetition, "cpu_ms": wall, "foreign_load": 0.0}
            own |= {"repetition": repetition, "calls": 4, "contaminated": False, "reason": None}
            rows.append({"prompt_tokens": tokens, **own})
    return pd.DataFrame(rows).assign(scheme=scheme, **MACHINE)


def memory(policy: str, scheme: str) -> Table:
    """CACHE_MEMORY under one scheme: so many bits for each number, and a hundredth more than theory says."""
    held = [("perplexity", window, 255) for window in range(WINDOWS)]
    held += [("prompt", tokens, tokens) for tokens in PROMPTS]
    table = pd.DataFrame(held, columns=["experiment", "index", "tokens"])
    size = table["tokens"] * CELLS * STORED_BITS[policy] / 8
    taken = size.round().astype("int64").astype("Int64")
    peak = (2 * taken).where(table["experiment"] == "prompt")
    theory = None if policy == "quanto-4" else size / (1 if policy == "float" else 1.01)
    own = {"cache_bytes": taken, "predicted_bytes": theory, "effective_bits": STORED_BITS[policy], "peak_bytes": peak}
    return table.assign(scheme=scheme, reason=None, **own, **MACHINE)


def _refused(table: Table, **values: Any) -> Table:
    """A row for each prompt, with a reason and no numbers."""
    return table.assign(**values).drop_duplicates(["scheme", "index" if "index" in table else "prompt_tokens"])


def measured(policy: str, schemes: tuple[str, ...], *, refused: tuple[str, ...] = ()) -> summary.Measured:
    """All raw tables of a policy but the trace; it could not run under the schemes that are `refused`."""
    run = [scheme for scheme in schemes if scheme not in refused]

    def of(made: Callable[[str, str], Table]) -> Table:
        return pd.concat([made(policy, scheme) for scheme in run or schemes], ignore_index=True)

    scores = (of(perplexity), of(choices)) if run else (of(perplexity).head(0), of(choices).head(0))
    held, timed = ([of(made)] if run else [] for made in (memory, latency))
    nothing = dict.fromkeys(("cache_bytes", "predicted_bytes", "effective_bits", "peak_bytes"))
    for scheme in refused:
        weighed = memory(policy, scheme)
        held.append(_refused(weighed[weighed["experiment"] == "prompt"], **nothing, reason=REASON))
        timed.append(_refused(latency(policy, scheme), **refusal(REASON)))
    return summary.Measured(*scores, pd.concat(timed, ignore_index=True), pd.concat(held, ignore_index=True))


def cells(model: str, schemes: tuple[str, ...]) -> dict[tuple[str, str], summary.Measured]:
    """All policies of a model; the library does not run under the last scheme."""
    return {
        (model, policy): measured(policy, schemes, refused=schemes[-1:] if "library" in entry else ())
        for policy, entry in POLICIES.items()
    }


def trace(policy: str) -> Table:
    """CACHE_TRACE of a policy that chooses bits: where entropy does, unsure tokens get 4 bits and sure ones 2."""
    count = 120
    generator = np.random.default_rng(3)
    entropy = np.abs(generator.normal(2, 1.5, count))
    order = entropy if policy == "entropy" else generator.random(count)
    ranks = np.argsort(np.argsort(order))
    bits = 2 + 3 * ranks // count
    table = pd.DataFrame({"position": range(count), "token": 7, "text": "<b>", "entropy": entropy, "bits": bits})
    table.loc[0, "entropy"] = np.nan
    written = table["position"] >= 20
    return table.assign(written=written, running_bits=table["bits"].expanding().mean())


def write(model: str, schemes: tuple[str, ...], results: Path, draw: Callable[[Path, str], None]) -> None:
    """What the chapter leaves for the report of one model."""
    own, folder = cells(model, schemes), results / "summary"
    lengths = summary.lengths(own)
    write_table(CACHE_LENGTHS, lengths, folder / "kv_cache_lengths.parquet")
    write_table(KV_CACHE, summary.summarize(own, lengths, POLICIES), folder / "kv_cache.parquet")
    write_table(CACHE_PAIRS, summary.pairs(own, POLICIES), folder / "kv_cache_pairs.parquet")
    for policy in traces():
        write_table(CACHE_TRACE, trace(policy), results / model / "kv_cache" / policy / "trace.parquet")
    for figure in FIGURES:
        draw(results / model / "kv_cache" / f"{figure}.svg", figure)


def traces() -> Mapping[str, Table]:
    """CACHE_TRACE tables of all policies that choose bits."""
    return {policy: trace(policy) for policy, entry in POLICIES.items() if "feature" in entry}
