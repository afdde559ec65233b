"""All texts of the chapter through one model: what its heads look at, as the chapter's raw tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from inferometer.attention.capture import FIRST, Captured, LayerAttention, capture
from inferometer.attention.inputs import Text
from inferometer.attention.names import BOS, OWN
from inferometer.attention.residuals import watching
from inferometer.attention.tables import HEADS, MAPS, POSITIONS, meaningful
from inferometer.device import Device
from inferometer.layers import chosen_layers
from inferometer.progress import progress
from inferometer.tables import Table

CELLS = 64  # rows and columns of a map; shorter texts are shown token by token


@dataclass(frozen=True)
class Trace:
    """The tables HEADS, POSITIONS, MAPS and RESIDUALS."""

    heads: pd.DataFrame
    positions: pd.DataFrame
    maps: pd.DataFrame
    residuals: pd.DataFrame


def head_rows(layer: int, found: LayerAttention, *, uniform: bool) -> pd.DataFrame:
    """The columns of HEADS that a layer's capture fills, a row for each head."""
    columns: dict[str, Any] = {f"first_{k}": found.first[k] for k in FIRST}
    columns |= {"recent": found.recent, "entropy": found.entropy, "distance_tokens": found.distance}
    columns = {name: values.numpy() for name, values in columns.items()}
    if uniform:
        columns |= {f"uniform_{k}": found.uniform[k] for k in FIRST}
    return pd.DataFrame({"layer": layer, "head": np.arange(len(found.entropy)), **columns, "reason": None})


def _heads(text: Text, captured: Captured) -> pd.DataFrame:
    rows = [head_rows(layer, found, uniform=True) for layer, found in captured.layers.items()]
    rows += [pd.DataFrame([{"layer": layer, "reason": reason}]) for layer, reason in captured.missing.items()]
    return pd.concat(rows).assign(**text.labels, tokens=text.tokens.shape[1])


def _positions(text: Text, captured: Captured) -> list[pd.DataFrame]:
    frames = []
    for layer, found in captured.layers.items():
        received = found.received[:, :-1].mean(dim=0).numpy()
        frames.append(pd.DataFrame({"layer": layer, "position": np.arange(len(received)), "received": received}))
    labels = {name: value for name, value in text.labels.items() if name != "first_token"}
    return [frame.assign(**labels) for frame in frames]


def extreme_heads(heads: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Layer and head with the largest share on the first two tokens, and with the smallest distance relative to
    the text's length, by the name of their map; means over all texts as they are that mean something, of HEADS."""
    own = meaningful(heads[heads["head"].notna()])
    own = own.assign(relative=own["distance_tokens"] / own["tokens"])
    means = own.groupby(["layer", "head"])[["first_2", "relative"]].mean()
    found: dict[str, Any] = {"sink": means["first_2"].idxmax(), "local": means["relative"].idxmin()}
    return {name: (int(layer), int(head)) for name, (layer, head) in found.items()}


def _map_rows(text: Text, name: str, layer: int, head: int | None, cells: Any, texts: Sequence[str]) -> pd.DataFrame:
    """A map [cells, cells] as rows; what is later than a row is left out."""
    count, tokens = len(cells), text.tokens.shape[1]
    starts = -(np.arange(count) * -tokens // count)  # the first token of each cell
    rows, columns = np.tril_indices(count)
    full = count == tokens
    return pd.DataFrame(
        {
            "input": text.input,
            "length": text.length,
            "map": name,
            "layer": layer,
            "head": head,
            "row": starts[rows],
            "column": starts[columns],
            "share": cells[rows, columns],
            "row_text": [texts[row] if full else None for row in rows.tolist()],
            "cell_tokens": -(-tokens // count),
        }
    )


def _maps(
    text: Text, layers: Mapping[int, LayerAttention], extremes: Mapping[str, tuple[int, int]], texts: Sequence[str]
) -> list[pd.DataFrame]:
    if not layers:
        return []
    known = sorted(layers)
    found = []
    for name in ("first", "middle", "last"):
        layer = known[chosen_layers([name], len(known))[0]]
        cells = layers[layer].map
        assert cells is not None
        found.append(_map_rows(text, name, layer, None, cells.mean(dim=0).numpy(), texts))
    for name, (layer, head) in extremes.items():
        cells = layers[layer].map
        assert cells is not None
        found.append(_map_rows(text, name, layer, head, cells[head].numpy(), texts))
    return found


def _joined(table: Table, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All frames as one, with the table's columns where there is none."""
    empty = pd.DataFrame({column.name: pd.Series(dtype="object") for column in table.columns})
    return pd.concat(frames, ignore_index=True) if frames else empty


def trace(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    begun: Sequence[Text],
    no_bos: str | None,
    device: Device,
) -> Trace:
    """Read every text, and those `begun` otherwise, and take down what the heads look at.

    `no_bos` says why none of them begins with a BOS token, which becomes a row.
    """
    heads, positions, residuals = [], [], []
    drawn: list[tuple[Text, dict[int, LayerAttention]]] = []
    for text in progress([*texts, *begun], "reading texts"):
        shown = text.number == 0 and text.first_token == OWN
        with watching(model) as rows:
            captured = capture(model, text.tokens, cells=CELLS if shown else 0)
        heads.append(_heads(text, captured))
        residuals.append(pd.DataFrame(rows).assign(**text.labels))
        if text.first_token == OWN:
            positions += _positions(text, captured)
        if shown:
            drawn.append((text, captured.layers))
    if no_bos is not None:
        first = begun[0]
        labels = {**first.labels, "first_token": BOS}
        heads.append(pd.DataFrame([{**labels, "reason": no_bos}]))
    columns = [column.name for column in HEADS.columns if column.name not in ("device", "dtype")]
    table = pd.concat(heads, ignore_index=True).reindex(columns=columns)
    table = table.astype(dict.fromkeys(("layer", "head", "tokens"), "Int64"))
    extremes = extreme_heads(table) if drawn and drawn[0][1] else {}
    maps = []
    for text, layers in drawn:
        words: Any = [
            tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in text.tokens[0].tolist()
        ]
        maps += _maps(text, layers, extremes, words)
    machine = {"device": device.kind, "dtype": str(model.dtype).removeprefix("torch.")}
    return Trace(
        heads=table.assign(**machine),
        positions=_joined(POSITIONS, positions),
        maps=_joined(MAPS, maps).astype({"head": "Int64"}),
        residuals=pd.concat(residuals, ignore_index=True),
    )
