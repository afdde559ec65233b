"""Bytes of weights under a dtype or a scheme, and bytes of the KV cache; needs no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from inferometer.capacity.shapes import Part, Shape
from inferometer.errors import InferometerError
from inferometer.quantization.formats import BLOCKS, FLOAT_LAYOUTS, HALF_BITS, Layout, integer_layout, vector_length

DTYPE_BYTES: Mapping[str, int] = MappingProxyType({"float32": 4, "float16": 2, "bfloat16": 2})
FORMAT_LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {**FLOAT_LAYOUTS, "llm_int8": integer_layout(8, "per_channel", symmetric=True)}
)
UNCOVERED = "nf4"  # bitsandbytes lays out its scales of scales as it likes

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of all weights: `rounded_bytes` on a grid, with scales and zero points, and `float_bytes` of the rest."""

    rounded_bytes: int
    float_bytes: int

    @property
    def total_bytes(self) -> int:
        """Both together."""
        return self.rounded_bytes + self.float_bytes


def _layout(weights: Entry) -> Layout:
    if "format" in weights:
        return FORMAT_LAYOUTS[weights["format"]]
    return integer_layout(weights["bits"], weights["granularity"], weights.get("symmetric", True))


def matrix_bytes(weights: Entry, outputs: int, inputs: int) -> int:
    """Exact bytes of a matrix [outputs, inputs] rounded by the `weights` of a scheme: packed codes and all scales.

    Raises InferometerError when groups do not divide the inputs.
    """
    block = BLOCKS.get(weights.get("format", ""))
    granularity = "per_group" if block else weights.get("granularity", "per_channel")
    elements = outputs * inputs
    length = vector_length(granularity, block or weights.get("group_size"), elements, inputs)
    if granularity == "per_group" and inputs % length:
        raise InferometerError(
            f"groups of {length} do not divide {inputs} inputs of a layer (or of a GPU's share of it); choose another "
            "size of groups or degree of tensor parallelism."
        )
    return _layout(weights).bytes_of(elements, length)


@dataclass(frozen=True)
class Share:
    """What is held of a part: of which layers, and of each copy how many outputs, inputs and biases."""

    layers: range
    outputs: int
    inputs: int
    biases: int


def whole(part: Part) -> Share:
    """All of a part."""
    return Share(range(part.layers), part.outputs, part.inputs, part.outputs * part.bias)


def share_bytes(part: Part, share: Share, dtype: str, scheme: Entry) -> WeightBytes:
    """Bytes of a share of a part under a scheme's entry; what is not rounded takes `dtype`."""
    weights, keep = scheme.get("weights"), scheme.get("keep", ())
    kept = [any(fnmatchcase(module, pattern) for pattern in keep) for module in part.modules(share.layers)]
    rounded = kept.count(False) * part.experts if part.linear and weights is not None else 0
    copies = len(share.layers) * part.experts
    floats = (copies - rounded) * share.outputs * share.inputs + copies * share.biases
    codes = rounded * matrix_bytes(weights, share.outputs, share.inputs) if rounded and weights is not None else 0
    return WeightBytes(codes, floats * DTYPE_BYTES[dtype])


def weight_bytes(shape: Shape, dtype: str, scheme: Entry) -> WeightBytes:
    """Exact bytes of all weights under a scheme's entry of the configuration; `{}` rounds nothing.

    What is not rounded takes `dtype`. A rotation gives a tied output head a weight of its own. Raises InferometerError
    for a format whose bytes only its library knows.
    """
    if scheme.get("weights", {}).get("format") == UNCOVERED:
        raise InferometerError(f"only bitsandbytes itself knows the bytes of its format {UNCOVERED}.")
    sizes = [share_bytes(part, whole(part), dtype, scheme) for part in shape.parts]
    untied = shape.vocabulary * shape.hidden_size * DTYPE_BYTES[dtype] if shape.tied and "rotation" in scheme else 0
    return WeightBytes(sum(size.rounded_bytes for size in sizes), sum(size.float_bytes for size in sizes) + untied)


def head_bytes(head_dim: int, kv_bits: int) -> int:
    """Bytes of one key or value of one head: packed codes, below 16 bits with a scale of 16 bits."""
    return math.ceil((head_dim * kv_bits + (0 if kv_bits >= HALF_BITS else HALF_BITS)) / 8)


def kv_bytes_per_token(shape: Shape, kv_bits: int) -> int:
    """Bytes that one more token adds to the cache while no window is full: keys and values of every layer."""
    return 2 * shape.layers * shape.kv_heads * head_bytes(shape.head_dim, kv_bits)


def held_tokens(context_tokens: int, window: int | None) -> int:
    """Tokens of a context that a layer's cache holds. Raises InferometerError for a context below 1."""
    if context_tokens < 1:
        raise InferometerError(f"the context is {context_tokens} tokens; it must be at least 1.")
    return context_tokens if window is None else min(context_tokens, window)


def kv_bytes_per_request(shape: Shape, context_tokens: int, kv_bits: int) -> int:
    """Bytes of the cache of one request of so many tokens; layers with a window hold no more than that."""
    tokens = sum(held_tokens(context_tokens, window) for window in shape.windows)
    return 2 * tokens * shape.kv_heads * head_bytes(shape.head_dim, kv_bits)


def workspace_bytes_per_token(shape: Shape, dtype: str, tensor_parallel: int = 1) -> int:
    """Bytes of activations that a forward pass holds at once for a token, in the widest place of a layer.

    Beside the residual stream and its norm, either queries, keys, values and what attention makes of them, or the inner
    values of the MLP (two of each where it is gated, of all chosen experts) and its output. Scores are never stored.
    """
    stream = 2 * shape.hidden_size
    kv_heads = max(shape.kv_heads // tensor_parallel, 1)
    attention = (2 * shape.query_heads // tensor_parallel + 2 * kv_heads) * shape.head_dim
    inner = shape.intermediate_size // tensor_parallel * (2 if shape.gated else 1) * shape.active_experts
    return (stream + max(attention, inner + shape.hidden_size)) * DTYPE_BYTES[dtype]
