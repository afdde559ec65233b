"""Grids of narrow float formats: FP8, and the block formats MXFP8, MXFP4 and NVFP4.

Elements are bit-exact: every code is a value of the published format, rounded to nearest with ties to even, and values
beyond the largest go to the largest.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from inferometer.quantization.formats import FLOAT_LAYOUTS, Layout
from inferometer.quantization.grids import SMALLEST_ABSMAX, Grid, Parameters, absmax

FLOAT32_SIGNIFICAND_BITS = 23
FLOAT32_EXPONENT_MASK = 0x7F800000
SMALLEST_E8M0 = 2.0**-127  # of the scales of MX formats


@dataclass(frozen=True)
class FloatElement:
    """A narrow float: its significand, the exponent of its smallest normal number, and its largest value."""

    significand_bits: int
    smallest_exponent: int
    largest: float

    def nearest(self, values: Tensor) -> Tensor:
        """The nearest values of the format to float32 `values`, ties to even, saturating; in a new tensor.

        Float32 does the rounding: next to a power of two that is 2^23 steps large, its own step is the format's.
        """
        magnitudes = values.abs().clamp_(max=self.largest)
        powers = _powers_of_two(magnitudes).clamp_(min=2.0**self.smallest_exponent)
        steps = powers.mul_(2.0 ** (FLOAT32_SIGNIFICAND_BITS - self.significand_bits))
        return magnitudes.add_(steps).sub_(steps).copysign_(values)

    @property
    def largest_exponent(self) -> int:
        """The exponent of the largest value."""
        return math.frexp(self.largest)[1] - 1


# Micikevicius et al. 2022, "FP8 formats for deep learning", table 1; OCP Microscaling Formats 1.0, section 5.3.
E4M3 = FloatElement(significand_bits=3, smallest_exponent=-6, largest=448.0)
E5M2 = FloatElement(significand_bits=2, smallest_exponent=-14, largest=57344.0)
E2M1 = FloatElement(significand_bits=1, smallest_exponent=0, largest=6.0)
ELEMENTS: Mapping[str, FloatElement] = MappingProxyType(
    {"fp8_e4m3": E4M3, "fp8_e5m2": E5M2, "mxfp8": E4M3, "mxfp4": E2M1, "nvfp4": E2M1}
)


@dataclass(frozen=True)
class FloatGrid(Grid):
    """A float `format` with scales of its own kind.

    FP8 has a float32 scale that takes the largest magnitude to the largest value. The MX formats have one power of two
    for each 32 neighbours, 2^(floor(log2(absmax)) - e) with e the exponent of the largest value (OCP Microscaling
    Formats 1.0, section 6.3). NVFP4 has an E4M3 scale for each 16 and a float32 scale for the tensor (NVIDIA 2025,
    "Pretraining large language models with NVFP4", appendix B). A block too small for any E4M3 scale gets the largest
    one, under which it becomes zeros.
    """

    format: str = "fp8_e4m3"

    @property
    def element(self) -> FloatElement:
        """The format of one code."""
        return ELEMENTS[self.format]

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return self.layout.code_bits

    @property
    def layout(self) -> Layout:
        """Codes with the scales that the format has."""
        return FLOAT_LAYOUTS[self.format]

    def parameters(self, values: Tensor, importance: Tensor | None = None) -> Parameters:
        """Scales that suit float32 vectors; they reach the largest value, whatever the importance of others."""
        largest = absmax(values)
        if self.format == "nvfp4":
            whole = largest.amax().clamp(min=SMALLEST_ABSMAX) / (self.element.largest * E4M3.largest)
            block = E4M3.nearest(largest / self.element.largest / whole)
            return Parameters(torch.where(block == 0, E4M3.largest, block) * whole)
        if self.format.startswith("mx"):
            scale = _powers_of_two(largest).mul_(2.0**-self.element.largest_exponent)
            return Parameters(scale.clamp_(min=SMALLEST_E8M0))
        return Parameters(largest.clamp(min=SMALLEST_ABSMAX) / self.element.largest)

    def nearest(self, values: Tensor, parameters: Parameters) -> Tensor:
        """The nearest values of the format to scaled vectors."""
        return self.element.nearest(values / parameters.scale)


def _powers_of_two(magnitudes: Tensor) -> Tensor:
    """The largest powers of two not above float32 magnitudes, in a new tensor.

    Below the normal numbers it is zero, and infinity for what is not finite.
    """
    return (magnitudes.view(torch.int32) & FLOAT32_EXPONENT_MASK).view(torch.float32)
