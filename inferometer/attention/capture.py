"""What every head attends to, taken down while the model reads, without ever holding a weight for every pair of tokens.

Transformers lets a function of one's own compute the attention of all layers. This one takes the softmax in blocks of
queries, reduces each block to a few numbers per head, and uses the same memory for the next. The masks are those that
the model builds for itself, so sliding windows are each layer's own.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, Cache, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from inferometer.errors import InferometerError

NAME = "inferometer"  # under which transformers finds the function
FIRST = (1, 2, 4)  # tokens at the start whose share is taken; the source study takes two
RECENT = 16  # tokens, the one itself among them, that count as recent
BLOCK_BYTES = 2**21  # of the weights that are in memory at once, of all heads
LEAST_ROWS = 16  # queries at once, however long the text
UNSUPPORTED = ("s_aux", "position_bias")  # what some models add to the scores or below the sum


@dataclass(frozen=True)
class LayerAttention:
    """What one layer's heads attended to, as means over the queries that were captured.

    A share on the first k tokens [heads] is a mean over the queries that see more than k tokens, `uniform` what it
    would be if each looked alike at all that it sees; `recent` is a mean over those that see more than RECENT.
    `entropy` [heads] in nats and `distance` [heads] in tokens leave out the first token, which sees only itself.
    `received` [heads, tokens] is the mean weight from later queries; not a number where none is later. `map`
    [heads, cells, cells] is the share of a row of tokens' attention that goes to a column of tokens, so that each row
    sums to one.
    """

    first: dict[int, Tensor]
    uniform: dict[int, float]
    recent: Tensor
    entropy: Tensor
    distance: Tensor
    received: Tensor
    map: Tensor | None


@dataclass
class _Sums:
    """What a layer's blocks add up to: sums of a head in float64, of what a token received in float32."""

    heads: int
    cells: int
    device: torch.device
    begin: int | None = None
    end: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    uniform: dict[int, float] = field(default_factory=lambda: dict.fromkeys(FIRST, 0.0))
    received: Tensor = field(init=False)
    map: Tensor | None = None

    def __post_init__(self) -> None:
        self.received = torch.zeros(self.heads, 0, device=self.device)

    def add(self, name: str, values: Tensor, counted: Tensor) -> None:
        """Add values [heads, rows] of the rows that count."""
        total = (values * counted).sum(dim=-1, dtype=torch.float64)
        self.sums[name] = self.sums[name] + total if name in self.sums else total

    def receive(self, columns: Tensor) -> None:
        """Add what columns [heads, keys] received."""
        missing = columns.shape[1] - self.received.shape[1]
        if missing > 0:
            self.received = nn.functional.pad(self.received, (0, missing))
        self.received[:, : columns.shape[1]] += columns

    def _mean(self, name: str, least: int) -> Tensor:
        """The mean over captured queries at `least` or later; not a number where there are none."""
        queries = self.end - max(self.begin or 0, least)
        return self.sums[name] / queries if queries > 0 else torch.full_like(self.sums[name], math.nan)

    def means(self) -> LayerAttention:
        """All as means, on the CPU."""
        begin, places = self.begin or 0, torch.arange(self.end)
        later = self.end - torch.clamp(places + 1, min=begin)
        cells = None if self.map is None else self.map / self.map.sum(dim=-1, keepdim=True)
        return LayerAttention(
            first={k: self._mean(f"first {k}", k).cpu() for k in FIRST},
            uniform={
                k: total / (self.end - max(begin, k)) if self.end > max(begin, k) else math.nan
                for k, total in self.uniform.items()
            },
            recent=self._mean("recent", RECENT).cpu(),
            entropy=self._mean("entropy", 1).cpu(),
            distance=self._mean("distance", 1).cpu(),
            received=torch.where(later > 0, self.received.cpu() / later, math.nan),
            map=None if cells is None else cells.float().cpu(),
        )


class Recorder:
    """Adds up what the layers of one model attend to, over one or several passes on the same text.

    With `cells` a map of so many rows and columns of tokens is kept for every head, or of every token of a text that
    has no more; the text must be read in one pass then.
    """

    def __init__(self, cells: int = 0) -> None:
        self.cells = cells
        self._layers: dict[int, _Sums] = {}
        self._buffers: list[Tensor] = []

    def _buffer(self, which: int, size: int, like: Tensor) -> Tensor:
        """Memory for `size` numbers in float32, the same for every block of every layer."""
        while len(self._buffers) <= which:
            self._buffers.append(like.new_empty(0, dtype=torch.float32))
        if self._buffers[which].numel() < size:
            self._buffers[which] = like.new_empty(size, dtype=torch.float32)
        return self._buffers[which][:size]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, softcap: float
    ) -> Tensor:
        """The attention of one layer [tokens, heads, values] of queries [heads, tokens, width], with keys and values
        [kv_heads, keys, width], of which the last belong to the queries; a `mask` [1, tokens, keys] is true where
        something is seen, and without one all that is not later is.

        Scores are capped as softcap * tanh(score / softcap) where `softcap` is not 0 (Gemma 2).
        """
        heads, queries, _ = query.shape
        kv_heads, keys, width = value.shape
        offset = keys - queries
        sums = self._layers.setdefault(layer, _Sums(heads, self.cells, query.device))
        sums.begin = offset if sums.begin is None else sums.begin
        sums.end = keys
        output = query.new_empty(queries, heads, width)
        rows = min(queries, max(LEAST_ROWS, BLOCK_BYTES // (4 * heads * keys)))
        for start in range(0, queries, rows):
            end = min(start + rows, queries)
            seen, count = offset + end if mask is None else keys, end - start
            shape, grouped = (heads, count, seen), (kv_heads, heads // kv_heads * count, seen)
            asked = (query[:, start:end] * scaling).reshape(kv_heads, -1, query.shape[-1])
            scores = self._buffer(0, heads * count * seen, query).view(grouped)
            if query.dtype == torch.float32:
                torch.bmm(asked, key[:, :seen].transpose(1, 2), out=scores)
            else:
                scores.copy_(torch.bmm(asked, key[:, :seen].transpose(1, 2)))
            scores = scores.view(shape)
            if softcap:
                scores.div_(softcap).tanh_().mul_(softcap)
            hidden = _later(count, query.device) if mask is None else ~mask[:, start:end, :seen]
            scores[..., seen - hidden.shape[-1] :].masked_fill_(hidden, torch.finfo(torch.float32).min)
            weights = self._buffer(1, heads * count * seen, query).view(shape)
            torch.softmax(scores, dim=-1, out=weights)
            attended = torch.bmm(weights.view(grouped).to(value.dtype), value[:, :seen])
            output[start:end] = attended.view(heads, count, width).transpose(0, 1)
            visible = None if mask is None else mask[0, start:end, :seen]
            self._reduce(sums, scores, weights, offset + start, visible, keys)
        return output

    def _reduce(
        self, sums: _Sums, scores: Tensor, weights: Tensor, first: int, visible: Tensor | None, keys: int
    ) -> None:
        """Add a block of weights [heads, rows, keys], its first row the token at `first`; overwrites the scores."""
        _, rows, seen = weights.shape
        places = torch.arange(first, first + rows, device=weights.device)
        sees = places + 1 if visible is None else visible.sum(dim=-1)
        for k in FIRST:
            counted = places >= k
            sums.add(f"first {k}", weights[..., :k].sum(dim=-1), counted)
            share = k / sees if visible is None else visible[:, :k].sum(dim=-1) / sees
            sums.uniform[k] += float((share * counted).sum())
        back = places[:, None] - torch.arange(RECENT, device=weights.device)
        near = weights.gather(-1, back.clamp(min=0).expand(weights.shape[0], -1, -1)) * (back >= 0)
        sums.add("recent", near.sum(dim=-1), places >= RECENT)
        # H = log Z - sum of p s, and log Z from the likeliest key, whose p can't underflow
        log_z = scores.amax(dim=-1) - weights.amax(dim=-1).log()
        sums.add("entropy", log_z - scores.mul_(weights).sum(dim=-1), places >= 1)
        columns = torch.arange(seen, device=weights.device, dtype=torch.float32)
        sums.add("distance", places - weights @ columns, places >= 1)
        sums.receive(weights.sum(dim=1))
        sums.received[:, first : first + rows] -= near[..., 0]  # what a token gives to itself it does not receive
        if sums.cells:
            self._draw(sums, weights, places, keys)

    def _draw(self, sums: _Sums, weights: Tensor, places: Tensor, keys: int) -> None:
        """Add a block to the map: token i of n lies in cell i * cells // n."""
        cells, seen = min(sums.cells, keys), weights.shape[-1]
        if sums.map is None:
            sums.map = weights.new_zeros(weights.shape[0], cells, cells)
        belongs = torch.arange(seen, device=weights.device) * cells // keys
        by_column = weights @ nn.functional.one_hot(belongs, cells).to(weights.dtype)
        sums.map.index_add_(1, places * cells // keys, by_column)

    def layers(self) -> dict[int, LayerAttention]:
        """What was captured, by the number of the layer."""
        return {layer: sums.means() for layer, sums in sorted(self._layers.items())}


def _later(rows: int, device: torch.device) -> Tensor:
    """Which of the block's own tokens [rows, rows] are later than each of them."""
    return torch.ones(rows, rows, dtype=torch.bool, device=device).triu(diagonal=1)


_active: ContextVar[Recorder] = ContextVar("recorder of attention")


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: queries, keys and values are [1, heads, tokens, width]."""
    if query.shape[0] != 1:
        raise InferometerError("attention is captured of one text at a time, without padding; pass texts one by one.")
    unsupported = [name for name in UNSUPPORTED if others.get(name) is not None]
    if unsupported:
        raise InferometerError(
            f"{type(module).__name__} adds {unsupported[0]} to its attention, which capturing it does not support."
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    own: Any = module
    mask = None if attention_mask is None else attention_mask[0]
    output = _active.get().attend(own.layer_idx, query[0], key[0], value[0], mask, scaling, softcap or 0.0)
    return output[None], None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # true where seen, and none at all where that is simply what is past


@contextmanager
def capturing(model: PreTrainedModel, cells: int = 0) -> Iterator[Recorder]:
    """Run the block with attention that is taken down; afterwards the model computes it as before."""
    before, recorder = model.config._attn_implementation, Recorder(cells)
    token = _active.set(recorder)
    try:
        model.set_attn_implementation(NAME)
        yield recorder
    finally:
        model.set_attn_implementation(before)
        _active.reset(token)


def why_none(model: PreTrainedModel, layer: int) -> str:
    """Why a layer whose attention was asked for and never came has none to show."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None)
    if kinds and "attention" not in kinds[layer].removeprefix("linear_attention"):
        return f"the layer is of type {kinds[layer]}, which has no softmax attention"
    return f"{type(model).__name__} does not compute it through transformers' attention interface"


@dataclass(frozen=True)
class Captured:
    """Layers by number, the reasons of those without attention, and the logits [1, vocabulary] behind the text."""

    layers: dict[int, LayerAttention]
    missing: dict[int, str]
    logits: Tensor


@torch.inference_mode()
def capture(model: PreTrainedModel, tokens: Tensor, cache: Cache | None = None, cells: int = 0) -> Captured:
    """What the model attends to in tokens [1, tokens], after what the cache holds, which keeps every token and grows.

    The method follows the softmax in blocks of FlashAttention (Dao et al. 2022), of queries alone.
    """
    with capturing(model, cells) as recorder:
        output: Any = model(
            tokens.to(model.device), past_key_values=cache, use_cache=cache is not None, logits_to_keep=1
        )
    layers = recorder.layers()
    count = model.config.get_text_config().num_hidden_layers
    missing = {layer: why_none(model, layer) for layer in range(count) if layer not in layers}
    return Captured(layers, missing, output.logits[0])
