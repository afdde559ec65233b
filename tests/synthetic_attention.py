"""What the chapter attention leaves of a made-up model: a sink with a plateau, on massive activations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inferometer.attention.names import DUMMIES, FLOAT, OWN
from inferometer.attention.summary import summarize_phases, summarize_rounded, summarize_sinks
from inferometer.attention.tables import (
    ATTENTION_SCHEMES,
    HEADS,
    MAPS,
    PHASES,
    POSITIONS,
    RESIDUALS,
    ROUNDED,
    SINKS,
)
from inferometer.tables import write_table

LAYERS, HEAD_COUNT, TEXTS = 8, 2, 3
LENGTHS = {"brief": 8, "lengthy": 64}
SHARES = (0.05, 0.05, 0.9, 0.9, 0.9, 0.9, 0.6, 0.6)  # of attention on the first two tokens, by layer
MACHINE = {"device": "cpu", "dtype": "float32"}
FIGURES = ("sinks", "heads", "first_tokens", "residuals", "schemes")


def settings(corpus: str, question_set: str) -> dict[str, Any]:
    """The chapter's part of a configuration."""
    return {
        "inputs": {
            "corpora": [corpus],
            "question_sets": [question_set],
            "lengths": {name: {"tokens": tokens, "texts": TEXTS} for name, tokens in LENGTHS.items()},
        },
        "first_token": {"input": corpus, "length": "lengthy", "words": {"common": "the"}},
        "rounding": {
            "schemes": ["w4a4"],
            "policies": ["static-4"],
            "corpus": corpus,
            "window_tokens": 64,
            "max_windows": TEXTS,
            "context_tokens": 32,
            "step_tokens": 16,
        },
    }


def inputs(config: dict[str, Any]) -> list[str]:
    """All inputs of the chapter."""
    own = config["inputs"]
    return [*own["corpora"], *own["question_sets"], *DUMMIES]


def _text_rows(shift: float) -> pd.DataFrame:
    """A row for each text, layer and head; shares differ a little from text to text."""
    index = pd.MultiIndex.from_product(
        [range(TEXTS), range(LAYERS), range(HEAD_COUNT)], names=["text", "layer", "head"]
    )
    rows = index.to_frame(index=False)
    share = np.array(SHARES)[rows["layer"]] + 0.01 * (rows["text"] - 1) - shift
    return rows.assign(
        first_1=share - 0.02,
        first_2=share,
        first_4=share + 0.01,
        recent=0.1,
        entropy=1.5 + shift * (1 + rows["head"]),
        distance_tokens=4.0,
        reason=None,
        **MACHINE,
    )


def heads(config: dict[str, Any]) -> pd.DataFrame:
    """A HEADS table; the repeated token has no sink, and a text can't begin with BOS."""
    parts = []
    for name in inputs(config):
        for length, tokens in LENGTHS.items():
            rows = _text_rows(0.0).assign(input=name, length=length, first_token=OWN, tokens=tokens)
            parts.append(rows.assign(first_2=0.1) if name == "repeated" else rows)
    begun = config["first_token"]
    labels = {"input": begun["input"], "length": begun["length"]}
    parts.append(_text_rows(0.02).assign(**labels, first_token="common", tokens=LENGTHS["lengthy"]))
    table = pd.concat(parts).assign(uniform_1=0.02, uniform_2=0.04, uniform_4=0.08)
    missing = pd.DataFrame([{**labels, "first_token": "bos", "text": 0, "reason": "<b>no</b> token", **MACHINE}])
    whole = dict.fromkeys(("layer", "head", "tokens"), "Int64")
    return pd.concat([table, missing], ignore_index=True).astype(whole)


def positions(config: dict[str, Any]) -> pd.DataFrame:
    """A POSITIONS table of one token."""
    kinds = [(name, length) for name in inputs(config) for length in LENGTHS]
    rows = pd.DataFrame(kinds, columns=["input", "length"])
    return rows.assign(text=0, layer=0, position=0, received=0.5)


def maps(config: dict[str, Any]) -> pd.DataFrame:
    """A MAPS table whose rows look at the first token and at themselves, where tokens are markup."""
    parts = []
    row, column = np.tril_indices(4)
    for name in inputs(config):
        for length, tokens in LENGTHS.items():
            for kind, layer, head in (
                ("first", 0, None), ("middle", 3, None), ("last", 7, None), ("sink", 2, 1), ("local", 5, 0),
            ):  # fmt: skip
                share = np.where(row == 0, 1.0, 0.5 * (column == 0) + 0.5 * (row == column))
                cells = tokens // 4
                parts.append(
                    pd.DataFrame({"row": row * cells, "column": column * cells, "share": share}).assign(
                        input=name, length=length, map=kind, layer=layer, head=head, cell_tokens=cells, row_text=None
                    )
                )
    return pd.concat(parts, ignore_index=True).astype({"head": "Int64"})


def residuals(config: dict[str, Any]) -> pd.DataFrame:
    """A RESIDUALS table: channel 11 is massive from layer 1 to layer 5."""
    rows = []
    for name in inputs(config):
        for layer in range(LAYERS):
            size = 5000.0 if 1 <= layer <= 5 else 20.0
            labels = {"input": name, "length": "lengthy", "first_token": OWN, "text": 0, "layer": layer}
            later = size if name == "repeated" else 10.0
            rows.append({**labels, "rank": 0, "channel": 11, "value": -size, "median_magnitude": 1.0})
            rows[-1]["later_magnitude"] = later
    return pd.DataFrame(rows)


def rounded(reference: str) -> pd.DataFrame:
    """A ROUNDED table: w4a4 loses a tenth of the sink, the cache nothing to speak of."""
    arms = ((reference, FLOAT, 0.0), ("w4a4", FLOAT, 0.1), (reference, "static-4", 0.001))
    parts = [_text_rows(shift).assign(scheme=scheme, cache=cache) for scheme, cache, shift in arms]
    return pd.concat(parts, ignore_index=True)


def write(model: str, config: dict[str, Any], results: Path, draw: Callable[[Path, str], None]) -> None:
    """All files of the chapter that the report reads; `config` is its part of the configuration."""
    folder, summary = results / model / "attention", results / "summary"
    write_table(HEADS, heads(config), folder / "heads.parquet")
    write_table(POSITIONS, positions(config), folder / "positions.parquet")
    write_table(MAPS, maps(config), folder / "maps.parquet")
    write_table(RESIDUALS, residuals(config), folder / "residuals.parquet")
    write_table(ROUNDED, rounded("fp"), folder / "rounded.parquet")
    write_table(SINKS, summarize_sinks({model: heads(config)}), summary / "sinks.parquet")
    write_table(PHASES, summarize_phases({model: heads(config)}), summary / "phases.parquet")
    write_table(
        ATTENTION_SCHEMES, summarize_rounded({model: rounded("fp")}, "fp"), summary / "attention_schemes.parquet"
    )
    for figure in (*FIGURES, *(f"maps-{name}" for name in inputs(config))):
        draw(folder / f"{figure}.svg", figure)
