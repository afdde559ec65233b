"""What a model loses when its cache forgets: texts read with a window of the latest tokens, with and without the first.

A cache of so many tokens that evicts one for each that it takes in (Xiao et al. 2024) is equal to a mask, which reads a
whole text in one pass. Its positions are counted within the cache. From a query back to the latest tokens these are the
distances of the text itself; only the kept first tokens come closer as those between are evicted.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from inferometer.device import Device
from inferometer.errors import InferometerError
from inferometer.features import rarity
from inferometer.folding import TOLERANCE, relative_error
from inferometer.manifest import Manifest
from inferometer.progress import progress
from inferometer.text import corpus_windows

NAME = "inferometer-eviction"  # under which transformers finds the attention
SERVED = {"full_attention", "sliding_attention"}  # types of layers that see as far back as they are given tokens
TEXT_WINDOWS = 4  # windows that a text is long
LEAST_TEXTS = 2  # below that there is no interval
QUERIES_AT_ONCE = 256
ROWS_AT_ONCE = 256  # of logits
PROBE_TOKENS = 16
HALF_TOLERANCE = 5e-2  # relative error of logits in a dtype of 16 bits


@dataclass(frozen=True)
class Window:
    """A cache that holds `tokens` tokens, the one that reads among them: the first `sinks`, and the latest others."""

    tokens: int
    sinks: int

    @property
    def latest(self) -> int:
        """How many of the latest tokens there is room for."""
        return self.tokens - self.sinks


@dataclass(frozen=True)
class Arm:
    """One way to hold a text: everything where there is no window."""

    name: str
    window: Window | None


def arms(window_tokens: int, sink_tokens: Sequence[int]) -> list[Arm]:
    """The arms that are compared: all tokens, a window without sinks, and windows of equal size with some."""
    plain = [Arm("full", None), Arm("window", Window(window_tokens, 0))]
    return plain + [Arm(f"window + {sinks}", Window(window_tokens, sinks)) for sinks in sink_tokens]


def read_texts(manifest: Manifest, checkpoint: Path, corpus: Path, settings: Mapping[str, Any]) -> list[Tensor]:
    """Texts [1, tokens] of four windows each, as the section `attention.eviction` of the configuration asks for.

    Raises InferometerError, before any weights are read, where they are longer than the model's context, or too few.
    """
    window, most = settings["window_tokens"], manifest.context_tokens // TEXT_WINDOWS
    if window > most:
        raise InferometerError(
            f"configuration key `attention.eviction.window_tokens` is {window}, and texts are {TEXT_WINDOWS} times as "
            f"long, but {manifest.name} has a context of {manifest.context_tokens} tokens; set it to at most {most}."
        )
    texts = {**settings, "window_tokens": TEXT_WINDOWS * window}
    return corpus_windows(manifest, checkpoint, corpus, texts, "attention.eviction", LEAST_TEXTS)


def attend(
    queries: Tensor,
    key: Tensor,
    value: Tensor,
    window: Window,
    *,
    scaling: float,
    softcap: float | None = None,
    reach: int | None = None,
) -> Tensor:
    """Attention [heads, tokens, values] of one text in which each token sees exactly what a window has kept.

    `queries` [positions, heads, tokens, width] are rotated to their positions in the text and, where there are sinks,
    to those in the cache as well; keys and values are [kv_heads, tokens, width]. Scores are capped as
    softcap * tanh(score / softcap); `reach` is how many tokens a layer that slides by itself looks back.
    """
    key, value = (states.repeat_interleave(queries.shape[1] // len(key), dim=0) for states in (key, value))
    in_text, in_cache = queries[0], queries[-1]
    places = torch.arange(queries.shape[2], device=key.device)
    parts = []
    for rows in places.split(QUERIES_AT_ONCE):
        begin, end = int(rows[0]), int(rows[-1]) + 1
        first, latest = slice(0, window.sinks), slice(max(window.sinks, begin + 1 - window.latest), end)
        keys = torch.cat([places[first], places[latest]])
        products = [in_cache[:, rows] @ key[:, first].mT, in_text[:, rows] @ key[:, latest].mT]
        scores = torch.cat(products, dim=-1).float() * scaling
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        back = rows[:, None] - keys
        seen = (back >= 0) & ((keys < window.sinks) | (back < window.latest))
        if reach is not None:
            cached = rows.clamp(max=window.tokens - 1)[:, None] - keys
            seen &= torch.where(keys < window.sinks, cached, back) < reach
        weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1).to(value.dtype)
        parts.append(weights @ torch.cat([value[:, first], value[:, latest]], dim=1))
    return torch.cat(parts, dim=1)


@dataclass
class _Pass:
    """What a pass leaves: the layers that computed attention, and the head's input [positions, tokens, width]."""

    layers: set[nn.Module] = field(default_factory=set)
    hidden: Tensor | None = None


@contextmanager
def _forgetting(model: PreTrainedModel, window: Window) -> Iterator[_Pass]:
    """Run the block with attention that sees what the window keeps; afterwards the model computes it as before."""
    found, before = _Pass(), model.config._attn_implementation

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        sliding_window: int | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        found.layers.add(module)
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        output = attend(query, key[0], value[0], window, scaling=scaling, softcap=softcap, reach=sliding_window)
        return output.transpose(0, 1).expand(len(query), -1, -1, -1), None

    def take(_head: nn.Module, arguments: tuple[Tensor]) -> Tensor:
        (found.hidden,) = arguments
        return found.hidden[:1]  # both rows are the same text: the head is the dearest layer of a small model

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    handle = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        model.set_attn_implementation(NAME)
        yield found
    finally:
        model.set_attn_implementation(before)
        handle.remove()


def _read(model: PreTrainedModel, tokens: Tensor, window: Window) -> tuple[Tensor, _Pass]:
    """Logits [tokens, vocabulary] of a text [1, tokens] of which each token sees what the window has kept.

    With sinks the model reads the text twice in one batch, once at the positions of the text and once at those in the
    cache, and so rotates queries by its own rules, whatever these are. Sinks have the same positions in both.
    """
    places = torch.arange(tokens.shape[1], device=tokens.device)
    positions = [places, places.clamp(max=window.tokens - 1)] if window.sinks else [places]
    with _forgetting(model, window) as found:
        logits: Tensor = model(tokens.expand(len(positions), -1), position_ids=torch.stack(positions)).logits
    return logits[0], found


@torch.inference_mode()
def why_not(model: PreTrainedModel, tokens: Tensor) -> str | None:
    """Why the tokens of a model can't be evicted one by one, or None; tried on the first of some tokens [1, tokens].

    A window that is never filled must leave the logits as they are, to a relative error of 1e-4 (5e-2 in 16 bits), and
    tokens must not hold their positions, or a cache could not count them anew.
    """
    probe, name, config = tokens[:, :PROBE_TOKENS], type(model).__name__, model.config.get_text_config()
    tolerance = TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE
    if others := set(getattr(config, "layer_types", None) or ()) - SERVED:
        return f"{name} has layers of type {', '.join(sorted(others))}, from which single tokens can't be evicted"
    logits, found = _read(model, probe, Window(probe.shape[1], 1))
    if len(found.layers) < config.num_hidden_layers:
        return f"{name} does not compute its attention through transformers' attention interface"
    if not relative_error(logits, model(probe).logits[0]) <= tolerance:
        return f"{name} does something in its attention that is not computed here"
    _, found = _read(model, probe, Window(probe.shape[1] // 2, 1))
    assert found.hidden is not None
    if not relative_error(found.hidden[1], found.hidden[0]) <= tolerance:
        return f"{name} has positions that are part of its tokens, and can't be counted anew in a cache"
    return None


def _nll(logits: Tensor, tokens: Tensor) -> Tensor:
    """-ln p in nats [tokens - 1] of each of the tokens [1, tokens] but the first."""
    parts = zip(logits[:-1].split(ROWS_AT_ONCE), tokens[0, 1:].split(ROWS_AT_ONCE), strict=True)
    return torch.cat([rarity(rows, wanted) for rows, wanted in parts]).cpu()


@torch.inference_mode()
def evict(
    model: PreTrainedModel, texts: Sequence[Tensor], window_tokens: int, sink_tokens: Sequence[int], device: Device
) -> pd.DataFrame:
    """How well each token of the texts [1, tokens] is predicted from what every arm has kept: EVICTION but `corpus`.

    Raises InferometerError when the model's logits are not numbers.
    """
    reason = why_not(model, texts[0].to(model.device))
    rows = []
    for index, text in enumerate(progress(texts, "evicting tokens")):
        tokens = text.to(model.device)
        for arm in arms(window_tokens, sink_tokens):
            places = {"arm": arm.name, "text": index, "position": range(1, tokens.shape[1])}
            if arm.window is not None and reason is not None:
                rows.append(pd.DataFrame({**places, "nll": None, "reason": reason}))
                continue
            logits = model(tokens).logits[0] if arm.window is None else _read(model, tokens, arm.window)[0]
            nll = _nll(logits, tokens)
            if nll.isnan().any():
                raise InferometerError(
                    f"the model's logits are not numbers (NaN) in text {index} ({arm.name}); set `dtype` of the model "
                    "to float32 or bfloat16."
                )
            rows.append(pd.DataFrame({**places, "nll": nll, "reason": None}))
    held = {arm.name: None if arm.window is None else arm.window.sinks for arm in arms(window_tokens, sink_tokens)}
    table = pd.concat([part.astype({"nll": "float64", "reason": object}) for part in rows], ignore_index=True)
    return table.assign(
        sink_tokens=table["arm"].map(held).astype("Int64"),
        window_tokens=window_tokens,
        device=device.kind,
        dtype=str(model.dtype).removeprefix("torch."),
    )
