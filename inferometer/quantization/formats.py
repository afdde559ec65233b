"""Names of number formats, and the bytes that tensors on grids take; needs no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

BLOCKS: Mapping[str, int] = MappingProxyType({"mxfp8": 32, "mxfp4": 32, "nvfp4": 16})  # values that share a scale
LIBRARY_FORMATS = ("llm_int8", "nf4")  # of bitsandbytes
FLOAT_BITS, HALF_BITS, BYTE_BITS = 32, 16, 8  # of scales


@dataclass(frozen=True)
class Layout:
    """Bits of one code, of the scale and zero point that a vector of values shares, and of what the tensor shares."""

    code_bits: int
    vector_bits: int
    tensor_bits: int = 0

    def bytes_of(self, elements: int, length: int) -> int:
        """Exact bytes of so many elements of which each `length` share a scale, packed."""
        bits = elements * self.code_bits + elements // length * self.vector_bits + self.tensor_bits
        return math.ceil(bits / 8)


FLOAT_LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "fp8_e4m3": Layout(8, FLOAT_BITS),
        "fp8_e5m2": Layout(8, FLOAT_BITS),
        "mxfp8": Layout(8, BYTE_BITS),
        "mxfp4": Layout(4, BYTE_BITS),
        "nvfp4": Layout(4, BYTE_BITS, FLOAT_BITS),
    }
)


def integer_layout(bits: int, granularity: str, symmetric: bool) -> Layout:
    """How integer grids are stored: scales of groups in float16, others in float32; zero points as codes."""
    return Layout(bits, (HALF_BITS if granularity == "per_group" else FLOAT_BITS) + (0 if symmetric else bits))


def vector_length(granularity: str, group_size: int | None, elements: int, inputs: int) -> int:
    """How many values of a tensor [..., inputs] share a scale."""
    match granularity:
        case "per_tensor":
            return elements
        case "per_group":
            assert group_size is not None
            return group_size
        case _:
            return inputs
