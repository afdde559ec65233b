"""Arithmetic intensity: operations for each byte that moves to or from memory; needs no torch.

A multiply-add counts as two operations. Standard attention writes scores and probabilities to memory and reads them
back; FlashAttention (Dao et al. 2022) keeps them on the chip. Formulas are derived in docs/methods.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from inferometer.capacity.shapes import PER_LAYER, Shape
from inferometer.capacity.storage import head_bytes

SOFTMAX_FLOPS = 3  # of each score: exponential, its part of the sum, division; finding the maximum is not counted
BLOCKS = (128, 128)  # rows of queries and of keys that FlashAttention-2 works on at once for heads of 128


@dataclass(frozen=True)
class Work:
    """Operations, and the bytes that they move to and from memory."""

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.bytes

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Attention:
    """Attention of the last `query_tokens` of a context, for a batch of requests: all of it in prefill, one in decode.

    `softmax_flops` are counted for each score. With `shared_kv` all requests of the batch read the same keys and
    values, as a common prefix would let them. `causal` leaves out what a query may not see. Queries, scores and outputs
    take `value_bytes` each; keys and values `kv_bits`, below 16 with their scales. With `blocks` (rows of queries, rows
    of keys) traffic is that of FlashAttention, in which query heads that share keys are worked on together.
    """

    context_tokens: int
    query_tokens: int
    head_dim: int
    query_heads: int = 1
    kv_heads: int = 1
    batch: int = 1
    softmax_flops: int = 0
    shared_kv: bool = False
    causal: bool = False
    value_bytes: int = 2
    kv_bits: int = 16
    blocks: tuple[int, int] | None = None

    @property
    def scores(self) -> int:
        """Scores of one head of one request: pairs of a query and a key that it sees."""
        unseen = self.query_tokens * (self.query_tokens - 1) // 2 if self.causal else 0
        return self.query_tokens * self.context_tokens - unseen

    def _keys_read(self) -> int:
        """How often a key of one KV head is read, summed over keys: once, or once for each block of queries."""
        if self.blocks is None:
            return self.context_tokens
        group = self.query_heads // self.kv_heads
        rows, (query_rows, key_rows) = self.query_tokens * group, self.blocks
        if not self.causal:
            return math.ceil(rows / query_rows) * self.context_tokens
        read = 0
        for first in range(0, rows, query_rows):
            last_query = (min(first + query_rows, rows) - 1) // group
            seen = self.context_tokens - self.query_tokens + last_query + 1
            read += min(self.context_tokens, math.ceil(seen / key_rows) * key_rows)
        return read

    @property
    def work(self) -> Work:
        """Operations and bytes of all heads and requests."""
        heads = self.batch * self.query_heads
        flops = heads * self.scores * (4 * self.head_dim + self.softmax_flops)
        queries_and_outputs = 2 * heads * self.query_tokens * self.head_dim
        scores = 0 if self.blocks else 4 * heads * self.scores
        copies = 1 if self.shared_kv else self.batch
        keys_and_values = 2 * copies * self.kv_heads * self._keys_read() * head_bytes(self.head_dim, self.kv_bits)
        return Work(flops, (queries_and_outputs + scores) * self.value_bytes + keys_and_values)


@dataclass(frozen=True)
class Convention:
    """What a study counted: operations of the softmax for each score, and whether a batch shares keys and values."""

    softmax_flops: int
    shared_kv: bool

    def attention(self, context_tokens: int, query_tokens: int, head_dim: int, batch: int = 1) -> Attention:
        """One head without mask, in 16 bits."""
        return Attention(
            context_tokens,
            query_tokens,
            head_dim,
            batch=batch,
            softmax_flops=self.softmax_flops,
            shared_kv=self.shared_kv,
        )


CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {"matmul-only": Convention(0, shared_kv=False), "with-softmax": Convention(SOFTMAX_FLOPS, shared_kv=True)}
)


def prefill_limit(head_dim: int, softmax_flops: int = 0, value_bytes: int = 2) -> float:
    """Intensity of standard prefill attention in an endless context: N² (4d + s) over 4 N² values."""
    return (4 * head_dim + softmax_flops) / (4 * value_bytes)


def shared_decode_limit(context_tokens: int, head_dim: int, softmax_flops: int = 0, value_bytes: int = 2) -> float:
    """Intensity of standard decode attention in an endless batch on one K and V, whose own bytes then count nothing."""
    values = 4 * context_tokens + 2 * head_dim
    return context_tokens * (4 * head_dim + softmax_flops) / (values * value_bytes)


def model_attention(shape: Shape, context_tokens: int, query_tokens: int, batch: int, kv_bits: int = 16) -> Attention:
    """A layer's attention as a model has it: all heads, grouped, causal, softmax counted, standard traffic."""
    return Attention(
        context_tokens,
        query_tokens,
        shape.head_dim,
        shape.query_heads,
        shape.kv_heads,
        batch,
        SOFTMAX_FLOPS,
        causal=True,
        kv_bits=kv_bits,
    )


def flash(attention: Attention, blocks: tuple[int, int] = BLOCKS) -> Attention:
    """The same with the traffic of FlashAttention."""
    return replace(attention, blocks=blocks)


def layer_work(attention: Attention, shape: Shape, weight_bits: float = 16) -> Work:
    """A whole decoder layer around this attention: projections and MLP added, norms and biases left out.

    Weights are read once for all tokens of the pass. Of a mixture those experts are read that tokens choose: with k of
    E chosen evenly by T tokens, E (1 − (1 − k/E)^T) of them in the mean.
    """
    tokens = attention.batch * attention.query_tokens
    total = attention.work
    for part in shape.parts:
        if PER_LAYER not in part.module or not (part.linear or part.group == "router"):
            continue
        chosen = shape.active_experts if part.experts > 1 else 1
        read = part.experts * (1 - (1 - chosen / part.experts) ** tokens)
        elements = part.outputs * part.inputs
        values = tokens * chosen * (part.outputs + part.inputs) * attention.value_bytes
        total += Work(2 * tokens * chosen * elements, read * elements * weight_bits / 8 + values)
    return total
