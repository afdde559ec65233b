"""What a pass costs by the capacity formulas, and how fast the machine's measured peaks would let it be.

The roofline (Williams et al. 2009): work takes at least what its operations take at the peak rate, and at least what
its bytes take at the peak bandwidth. Needs no torch.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from inferometer.capacity.intensity import flash, layer_work, model_attention
from inferometer.capacity.roofline import Roofs
from inferometer.capacity.shapes import Shape
from inferometer.capacity.storage import DTYPE_BYTES, weight_bytes
from inferometer.errors import InferometerError

OVERHEAD = 2.0  # times the roofline, beyond which neither of its limits explains the time

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """A pass to be predicted: `query_tokens` of each of `batch` prompts, the last of `context_tokens`."""

    context_tokens: int
    query_tokens: int
    batch: int
    layers: int
    dtype: str


@dataclass(frozen=True)
class Cost:
    """Operations by the dtype that they are done in, and bytes to and from memory."""

    flops: Mapping[str, float]
    bytes: float

    @property
    def total_flops(self) -> float:
        """Operations of all dtypes together."""
        return sum(self.flops.values())


def _weight_bits(shape: Shape, dtype: str, scheme: Entry) -> float:
    """Bits of a weight of a linear layer in the decoder, scales included, in the mean over all of them."""
    elements = sum(part.copies * part.outputs * part.inputs for part in shape.parts if part.linear)
    saved = weight_bytes(shape, dtype, {}).total_bytes - weight_bytes(shape, dtype, scheme).total_bytes
    return 8 * (DTYPE_BYTES[dtype] - saved / elements)


def cost(shape: Shape, scheme: Entry, cell: Cell) -> Cost:
    """What a pass costs: decoder layers with attention that keeps its scores on the chip, and logits of the last token.

    Linear layers of integer schemes with rounded inputs multiply int8, all else is in the cell's dtype. Embeddings are
    looked up, which costs nothing worth counting; norms and what rounds inputs are left out. Raises InferometerError
    where the bytes of the weights are not known.
    """
    size = DTYPE_BYTES[cell.dtype]
    attention = model_attention(shape, cell.context_tokens, cell.query_tokens, cell.batch, kv_bits=8 * size)
    attention = flash(replace(attention, value_bytes=size))
    layer = layer_work(attention, shape, weight_bits=_weight_bits(shape, cell.dtype, scheme))
    products = layer.flops - attention.work.flops
    logits = cell.batch * shape.vocabulary
    head_bytes = size * (shape.vocabulary * shape.hidden_size + logits + cell.batch * shape.hidden_size)
    multiplies_int8 = scheme.get("engine") == "integer" and "activations" in scheme
    flops = defaultdict[str, float](float)
    flops[cell.dtype] += cell.layers * attention.work.flops + 2.0 * logits * shape.hidden_size
    flops["int8" if multiplies_int8 else cell.dtype] += cell.layers * products
    return Cost(dict(flops), cell.layers * layer.bytes + head_bytes)


@dataclass(frozen=True)
class Prediction:
    """Least milliseconds by operations and by bytes, and what the roofline allows: of each pass the larger of both."""

    compute_ms: float
    memory_ms: float
    predicted_ms: float

    def bound(self, measured_ms: float) -> str:
        """What holds the pass up: `overhead` where it takes more than twice what the roofline allows."""
        if measured_ms > OVERHEAD * self.predicted_ms:
            return "overhead"
        return "compute" if self.compute_ms > self.memory_ms else "memory"


def predict(cost: Cost, roofs: Roofs) -> Prediction:
    """What the roofs allow. Raises InferometerError where there is no measured peak for a dtype."""
    missing = [dtype for dtype in cost.flops if dtype not in roofs.flops_per_s]
    if missing:
        raise InferometerError(f"this machine has no measured peak for {missing[0]}.")
    compute_s = sum(flops / roofs.flops_per_s[dtype] for dtype, flops in cost.flops.items())
    compute_ms, memory_ms = 1000 * compute_s, 1000 * cost.bytes / roofs.bytes_per_s
    return Prediction(compute_ms, memory_ms, max(compute_ms, memory_ms))
