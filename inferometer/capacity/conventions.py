"""What two studies printed about Llama-3-8B on 80 GB, reproduced under their own assumptions, beside the exact answer.

Study 002 counts as if attention had four square matrices and the MLP two; study 004 takes the model's name for its
number of parameters. Both divide GB, of which they sometimes mean 10^9 and sometimes 2^30 bytes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from inferometer.capacity.catalogue import find_shape
from inferometer.capacity.fit import Deployment, fit
from inferometer.capacity.intensity import (
    CONVENTIONS,
    flash,
    model_attention,
    prefill_limit,
    shared_decode_limit,
)
from inferometer.capacity.shapes import Shape
from inferometer.capacity.storage import kv_bytes_per_request
from inferometer.units import GIB

MODEL = "llama-3-8b"  # of both studies
MEMORY_GIB = 80
VALUE_BYTES = 2
CONTEXT_TOKENS, HEAD_DIM = 1024, 128  # at which both give their intensities


class Convention(Protocol):
    """A study's way to count; GB are the study's own, rounded where it rounds before it goes on."""

    @property
    def context_tokens(self) -> int:
        """The context that the study assumes."""

    def parameters(self, shape: Shape) -> float:
        """Parameters of the model."""

    def weights_gb(self, shape: Shape) -> float:
        """GB of the weights."""

    def kv_gb(self, shape: Shape, context_tokens: int) -> float:
        """GB of the cache of a request."""


@dataclass(frozen=True)
class MhaTwoMatrix:
    """Study 002: 4 h² for attention and 2 h I for the MLP of each layer, one embedding, keys and values of width h."""

    context_tokens: int = 1024

    def parameters(self, shape: Shape) -> float:
        """L (4 h² + 2 h I) + V h."""
        width = shape.hidden_size
        layer = 4 * width**2 + 2 * width * shape.intermediate_size
        return shape.layers * layer + shape.vocabulary * width

    def weights_gb(self, shape: Shape) -> float:
        """In GiB, to two decimals."""
        return round(self.parameters(shape) * VALUE_BYTES / GIB, 2)

    def kv_gb(self, shape: Shape, context_tokens: int) -> float:
        """2 · 2 bytes · L · h · s in GiB: as many KV heads as query heads."""
        return 2 * VALUE_BYTES * shape.layers * shape.hidden_size * context_tokens / GIB


@dataclass(frozen=True)
class RoundedName:
    """Study 004: as many parameters as the model's name says, their GiB rounded to whole ones; KV heads as they are."""

    billions: int = 8
    context_tokens: int = 4096

    def parameters(self, shape: Shape) -> float:
        """What the name says, whatever the shape."""
        return self.billions * 1e9

    def weights_gb(self, shape: Shape) -> float:
        """In GiB, to whole ones."""
        return round(self.parameters(shape) * VALUE_BYTES / GIB)

    def kv_gb(self, shape: Shape, context_tokens: int) -> float:
        """In GiB, exact."""
        return kv_bytes_per_request(shape, context_tokens, 16) / GIB


def batch(convention: Convention, shape: Shape, memory_gb: float, tensor_parallel: int = 1) -> int:
    """The largest batch as both studies have it: a GPU holds 1/X of everything, so (X · memory − weights) / cache."""
    room = tensor_parallel * memory_gb - convention.weights_gb(shape)
    return math.floor(room / convention.kv_gb(shape, convention.context_tokens))


@dataclass(frozen=True)
class Comparison:
    """A number that a study printed, what its convention gives, and the exact answer, null where there is none."""

    study: str
    convention: str
    quantity: str
    printed: str
    reproduced: float
    exact: float | None
    reason: str


def _exact_batch(shape: Shape, context_tokens: int, tensor_parallel: int) -> int:
    plan = Deployment(context_tokens, tensor_parallel=tensor_parallel)
    return fit(shape, MEMORY_GIB * GIB, plan).largest_batch


def _of_002(shape: Shape) -> Iterator[Comparison]:
    convention, name = MhaTwoMatrix(), "mha-two-matrix"
    context, width = convention.context_tokens, shape.hidden_size
    exact_kv = kv_bytes_per_request(shape, context, 16)
    too_many = shape.layers * 2 * width * (width - shape.kv_heads * shape.head_dim)
    gate = shape.layers * width * shape.intermediate_size
    left_out = {"output head": shape.parameters_of("head"), "norms": shape.parameters_of("norm")}
    parts = " and ".join(f"{count:,} of the {what}" for what, count in left_out.items())
    heads = f"{shape.query_heads} KV heads instead of {shape.kv_heads}"

    def row(quantity: str, printed: str, value: float, exact: float | None, reason: str) -> Comparison:
        return Comparison("002", name, quantity, printed, value, exact, reason)

    yield row(
        "parameters (10⁹)",
        "6.43",
        convention.parameters(shape) / 1e9,
        shape.parameters / 1e9,
        f"It counts {too_many:,} too many for keys and values ({heads}), and leaves out {gate:,} of the gate "
        f"projection, {parts}.",
    )
    weights = shape.parameters * VALUE_BYTES / GIB
    yield row("weights (GiB)", "11.98", convention.weights_gb(shape), weights, "The parameters that it leaves out.")
    yield row(
        f"KV cache of {context:,} tokens (GiB)",
        "0.5",
        convention.kv_gb(shape, context),
        exact_kv / GIB,
        f"It counts {heads}.",
    )
    why = "The cache is a quarter as large, which outweighs the larger weights."
    for degree, printed in ((1, "136"), (2, "296")):
        what = f"largest batch on {degree} × {MEMORY_GIB} GiB, {context:,} tokens"
        yield row(
            what, printed, batch(convention, shape, MEMORY_GIB, degree), _exact_batch(shape, context, degree), why
        )


def _of_004(shape: Shape) -> Iterator[Comparison]:
    convention, name = RoundedName(), "rounded-8b"
    context = convention.context_tokens
    kv = kv_bytes_per_request(shape, context, 16) / GIB

    def row(quantity: str, printed: str, value: float, exact: float | None, reason: str) -> Comparison:
        return Comparison("004", name, quantity, printed, value, exact, reason)

    yield row(
        "parameters (10⁹)",
        "8",
        convention.parameters(shape) / 1e9,
        shape.parameters / 1e9,
        "It takes the name.",
    )
    weights = shape.parameters * VALUE_BYTES / GIB
    yield row("weights (GiB)", "15", convention.weights_gb(shape), weights, "It rounds 14.90 up.")
    yield row(f"KV cache of {context:,} tokens (GiB)", "0.5", convention.kv_gb(shape, context), kv, "The same.")
    yield row(
        f"largest batch on 1 × {MEMORY_GIB} GiB, {context:,} tokens",
        "130",
        batch(convention, shape, MEMORY_GIB),
        _exact_batch(shape, context, 1),
        f"The same: there is room for {(MEMORY_GIB - weights) / kv:.2f} requests.",
    )
    yield row(
        f"largest batch on 3 × {MEMORY_GIB} GiB, {context:,} tokens",
        "450",
        batch(convention, shape, MEMORY_GIB, 3),
        None,
        f"3 does not divide the {shape.query_heads} heads, so this can't be deployed; on 2 GPUs "
        f"{_exact_batch(shape, context, 2)} requests fit, and {_exact_batch(shape, context, 4)} on 4.",
    )
    yield row(
        "the same, “combined”",
        "1350",
        3 * batch(convention, shape, MEMORY_GIB, 3),
        None,
        "Each request lies on all three GPUs, a third on each, and is counted three times.",
    )


def _intensities(shape: Shape) -> Iterator[Comparison]:
    tokens, width = CONTEXT_TOKENS, HEAD_DIM
    exact = {
        phase: model_attention(shape, tokens, queries, 1) for phase, queries in (("prefill", tokens), ("decode", 1))
    }
    grouped = f"The model's {shape.query_heads} query heads share {shape.kv_heads} KV heads"
    masked = f"{grouped}, and half of the scores are masked; with FlashAttention it is"
    why = {
        "prefill": f"{masked} {flash(exact['prefill']).work.intensity:,.0f}.",
        "decode": f"{grouped}; with FlashAttention it is {flash(exact['decode']).work.intensity:.2f}.",
    }
    printed = {
        ("matmul-only", "prefill"): "56.89",
        ("matmul-only", "decode"): "0.984",
        ("with-softmax", "prefill"): "57",
        ("with-softmax", "decode"): "1",
    }
    for (name, phase), text in printed.items():
        found = CONVENTIONS[name].attention(tokens, tokens if phase == "prefill" else 1, width).work.intensity
        study = "002" if name == "matmul-only" else "004"
        quantity = f"{phase} intensity, N = {tokens:,} (FLOP/byte)"
        yield Comparison(study, name, quantity, text, found, exact[phase].work.intensity, why[phase])
    for study, name in (("002", "matmul-only"), ("004", "with-softmax")):
        yield Comparison(
            study,
            name,
            "prefill intensity, limit of long contexts",
            "64",
            prefill_limit(width),
            prefill_limit(width, CONVENTIONS["with-softmax"].softmax_flops),
            "d/2; with the operations of the softmax (4d + 3)/8.",
        )
    yield Comparison(
        "004",
        "with-softmax",
        f"decode intensity, limit of large batches, N = {tokens:,}",
        "60",
        shared_decode_limit(tokens, width),
        CONVENTIONS["matmul-only"].attention(tokens, 1, width, batch=100).work.intensity,
        "It lets all requests read one K and V, and leaves the softmax out of the limit; requests with contexts of "
        "their own stay where a single one is, as study 002 has it.",
    )


def comparisons() -> list[Comparison]:
    """Every number of the two studies."""
    shape = find_shape(MODEL)
    return [*_of_002(shape), *_of_004(shape), *_intensities(shape)]
