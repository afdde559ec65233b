"""Symmetric integer grids, and linear layers that compute on values rounded to them.

A grid of b bits has the codes -(2^(b-1) - 1) ... 2^(b-1) - 1 and one scale for all values that share it:
x_q = round(x / s) with s = absmax / (2^(b-1) - 1) (Xiao et al. 2023, SmoothQuant, eq. 1). The arithmetic here is
simulated: values are rounded to the grid and multiplied as floats. That gives the accuracy of integer hardware,
never its speed.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from inferometer.models import Linear, weight_matrix

SMALLEST_ABSMAX = 1e-5  # as in the reference implementation: keeps an all-zero row from dividing by zero

Granularity = Literal["per_tensor", "per_channel", "per_token"]


@dataclass(frozen=True)
class Grid:
    """A symmetric integer grid: its `bits`, and which values share a scale.

    `per_channel` gives each output channel of a weight [outputs, inputs] a scale, `per_token` each row of
    activations [..., channels]: both are one scale for each vector along the last dimension.
    """

    bits: int
    granularity: Granularity

    @property
    def largest_code(self) -> int:
        """The largest code; the smallest is its negative."""
        return int(2 ** (self.bits - 1)) - 1

    def scale(self, values: Tensor) -> Tensor:
        """The step between neighbours: [..., 1], or a single number for `per_tensor`."""
        magnitudes = values.abs()
        absmax = magnitudes.amax() if self.granularity == "per_tensor" else magnitudes.amax(dim=-1, keepdim=True)
        return absmax.clamp(min=SMALLEST_ABSMAX) / self.largest_code

    def codes(self, values: Tensor, scale: Tensor) -> Tensor:
        """The nearest codes, ties to even, as whole numbers in the dtype of `values`."""
        return (values / scale).round_()

    def round_trip(self, values: Tensor) -> Tensor:
        """Values rounded to the grid and back, in a new tensor of their dtype.

        The arithmetic is that of float32: in bfloat16 some values of an 8-bit grid would get a code beyond its ends.
        """
        exact = values.float()
        scale = self.scale(exact)
        return self.codes(exact, scale).mul_(scale).to(values.dtype)


class ActivationRounder:
    """Rounds activations to a grid, once for all layers that read the same tensor (such as q, k and v)."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """The rounded values; the very same tensor, asked again, is answered from memory."""
        if self._last is None or self._last[0] is not values:
            self._last = (values, self.grid.round_trip(values))
        return self._last[1]


class SimulatedLinear(nn.Module):
    """A linear layer with a rounded copy of another's weight [outputs, inputs], and inputs rounded as they come."""

    def __init__(self, layer: Linear, weights: Grid | None, activations: ActivationRounder | None) -> None:
        super().__init__()
        weight = weight_matrix(layer)
        self.weight = nn.Parameter(weights.round_trip(weight) if weights else weight, requires_grad=False)
        self.bias = layer.bias
        self.activations = activations

    def forward(self, values: Tensor) -> Tensor:
        """As nn.Linear: [..., inputs] to [..., outputs]."""
        rounded = self.activations(values) if self.activations else values
        return nn.functional.linear(rounded, self.weight, self.bias)
