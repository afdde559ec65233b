"""The smallest quantized layer: one scale for a whole tensor, codes multiplied as the integers that they are."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inferometer.quantization.grids import IntegerGrid


@dataclass(frozen=True)
class Codes:
    """A tensor as integer `codes` of its shape (int8) and the one `scale` (float32, no dimensions) that they share."""

    codes: Tensor
    scale: Tensor


def quantize_per_tensor(values: Tensor, bits: int = 8) -> Codes:
    """Values of any shape to codes of 2 to 8 bits: x_q = round(x / s) with s = absmax / (2^(b-1) - 1)."""
    quantized = IntegerGrid("per_tensor", bits=bits).quantized(values)
    return Codes(quantized.codes.reshape(values.shape).to(torch.int8), quantized.parameters.scale.reshape(()))


def dequantize_per_tensor(quantized: Codes) -> Tensor:
    """The float32 values that codes stand for: x' = s x_q, at most s / 2 from what they were made of."""
    return quantized.codes * quantized.scale


class QuantLinear(nn.Module):
    """A linear layer that multiplies codes: those of its weight are made once, those of its input on every call.

    y = s_x s_w (x_q W_q^T) + b (Jacob et al. 2018, equation 7, without zero points). The sum over x_q W_q^T is taken in
    float64, where whole numbers of this size are exact on every device; only then the scales come in.
    """

    def __init__(self, linear: nn.Linear, bits: int = 8) -> None:
        super().__init__()
        self.bits = bits
        self.weight = quantize_per_tensor(linear.weight.detach(), bits)
        self.bias = linear.bias

    def forward(self, values: Tensor) -> Tensor:
        """As nn.Linear: [..., inputs] to [..., outputs]. All of `values` share one scale, whatever their number."""
        inputs = quantize_per_tensor(values, self.bits)
        sums = inputs.codes.double() @ self.weight.codes.double().T
        products = (sums * inputs.scale * self.weight.scale).to(values.dtype)
        return products if self.bias is None else products + self.bias
