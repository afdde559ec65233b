"""Linear layers that compute on values rounded to grids.

The arithmetic here is simulated: what lies on a grid is multiplied as floats. That gives the accuracy of hardware that
computes on codes, never its speed.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from inferometer.device import quick_products
from inferometer.quantization.grids import Grid, Parameters, Quantized
from inferometer.quantization.integer import ActivationCoder, IntegerLinear
from inferometer.quantization.kernels import Kernel, Multiply


class ActivationRounder:
    """Rounds activations to a grid, once for all layers that read the same tensor (such as q, k and v).

    With `static` parameters every tensor is put on that one grid; else each gets parameters of its own. Channels with
    a magnitude of `outlier_threshold` or more anywhere in the tensor stay in float, and the others are rounded as if
    they were zero (Dettmers et al. 2022, LLM.int8(), section 3.2); `channels` and `outliers` count them.
    """

    def __init__(self, grid: Grid, static: Parameters | None = None, outlier_threshold: float | None = None) -> None:
        self.grid = grid
        self.static = static
        self.outlier_threshold = outlier_threshold
        self.channels = 0
        self.outliers = 0
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """The rounded values; the very same tensor, asked again, is answered from memory."""
        if self._last is None or self._last[0] is not values:
            self._last = (values, self._rounded(values))
        return self._last[1]

    def _rounded(self, values: Tensor) -> Tensor:
        if self.static is not None:
            codes = self.grid.nearest(self.grid.vectors(values.float()), self.static)
            return self.grid.decoded(codes, self.static).reshape(values.shape).to(values.dtype)
        if self.outlier_threshold is None:
            return self.grid.round_trip(values)
        rows = values.flatten(end_dim=-2)
        outliers = (rows.abs() >= self.outlier_threshold).any(dim=0)
        self.channels += outliers.numel()
        self.outliers += int(outliers.sum())
        return self.grid.round_trip(values.masked_fill(outliers, 0)) + values.masked_fill(~outliers, 0)


class SimulatedLinear(nn.Module):
    """A linear layer on a weight [outputs, inputs] that was rounded before, and inputs rounded as they come."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activations: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = bias
        self.activations = activations

    def forward(self, values: Tensor) -> Tensor:
        """As nn.Linear: [..., inputs] to [..., outputs]."""
        rounded = self.activations(values) if self.activations else values
        return nn.functional.linear(rounded, self.weight, self.bias)


class SimulatedIntegerLinear(IntegerLinear):
    """A linear layer that multiplies integer codes as floats, for schemes that have an integer product.

    Sums of codes are exact below 2^24, so it computes what `IntegerLinear` does. Rounded values multiplied as floats
    would be off in last bits, which turn codes of the layers behind, and perplexities would lie some tenths of a
    percent apart. The codes are held in the model's `dtype`, which takes no more memory than the float weight; those of
    inputs are best given as float32.
    """

    def __init__(
        self, weight: Quantized, bias: Tensor | None, activations: ActivationCoder, dtype: torch.dtype
    ) -> None:
        codes = weight.codes.reshape(weight.shape).to(dtype, copy=True)

        def prepare(_codes: Tensor, scales: Tensor) -> Multiply:
            def multiply(rows: Tensor) -> Tensor:
                with quick_products():  # codes have 8 bits at most, so nothing is cut
                    return (rows.float() @ codes.float().t()).mul_(scales)

            return multiply

        super().__init__(weight, bias, activations, Kernel("float32", prepare))
        self._codes, self._scale = codes, weight.parameters.scale

    @property
    def weight(self) -> Tensor:
        """The rounded weight [outputs, inputs] that the codes stand for, in their dtype."""
        return (self._codes.float() * self._scale).to(self._codes.dtype)
