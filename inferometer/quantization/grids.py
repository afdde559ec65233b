"""Number grids: what values of few bits there are, and which of them share a scale.

A grid turns values into codes and back: x_q = round(x / s) + z and x' = s * (x_q - z). Integer grids have whole numbers
for codes; float grids have the values of a narrow float format. Every grid is computed in float32, exactly as hardware
with that format would see it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from inferometer.quantization.formats import Layout, integer_layout, vector_length

SMALLEST_ABSMAX = 1e-5  # as in the SmoothQuant reference: keeps an all-zero row from dividing by zero
CLIP_RATIOS = tuple(1 - 0.05 * step for step in range(14))  # 1.00 to 0.35, tried for the smallest squared error

Granularity = Literal["per_tensor", "per_channel", "per_token", "per_group"]
Clip = Literal["absmax", "percentile", "mse"]


@dataclass(frozen=True)
class Parameters:
    """What turns codes into values: `scale` and `zero_point` for each vector of values that share them.

    Both have the shape of the vectors with a last dimension of 1; symmetric and float grids have no zero point.
    """

    scale: Tensor
    zero_point: Tensor | None = None


@dataclass(frozen=True)
class Grid(ABC):
    """A grid and its `granularity`: which values share a scale.

    `per_channel` gives each output channel of a weight [outputs, inputs] a scale, `per_token` each row of activations
    [..., channels]; `per_group` gives one to every `group_size` neighbours of such a row; `per_tensor` has one in all.
    """

    granularity: Granularity
    group_size: int | None = None

    @property
    @abstractmethod
    def bits(self) -> int:
        """Bits of one code."""

    @abstractmethod
    def parameters(self, values: Tensor, importance: Tensor | None = None) -> Parameters:
        """Scales and zero points that suit the float32 `values`, by `vectors`.

        Grids that minimize squared errors weigh each by its value's `importance`, where that is given.
        """

    @abstractmethod
    def nearest(self, values: Tensor, parameters: Parameters) -> Tensor:
        """The nearest codes to float32 vectors, as float32, ties to even; what lies outside goes to the ends."""

    def own_codes(self, values: Tensor, parameters: Parameters) -> Tensor:
        """The nearest codes to the very vectors that the parameters were made from."""
        return self.nearest(values, parameters)

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """How a tensor on the grid is stored."""

    def vectors(self, values: Tensor) -> Tensor:
        """`values` as a view in which the last dimension shares one scale."""
        match self.granularity:
            case "per_tensor":
                return values.reshape(1, -1)
            case "per_group":
                assert self.group_size is not None
                groups: Tensor = values.unflatten(-1, (-1, self.group_size))
                return groups
            case _:
                return values

    def decoded(self, codes: Tensor, parameters: Parameters) -> Tensor:
        """The values that codes stand for; overwrites `codes`."""
        if parameters.zero_point is not None:
            codes = codes.sub_(parameters.zero_point)
        return codes.mul_(parameters.scale)

    def quantized(self, values: Tensor) -> "Quantized":
        """Codes and parameters of `values` [..., channels]."""
        vectors = self.vectors(values.float())
        parameters = self.parameters(vectors)
        return Quantized(self, self.own_codes(vectors, parameters), parameters, values.shape)

    def round_trip(self, values: Tensor) -> Tensor:
        """Values rounded to the grid and back, in a new tensor of their dtype.

        The arithmetic is that of float32: in bfloat16 some values of an 8-bit grid would get a code beyond its ends.
        """
        return self.quantized(values).values().to(values.dtype)

    def bytes_of(self, shape: torch.Size) -> int:
        """Exact bytes of a tensor of this shape on this grid: codes packed, with all scales and zero points."""
        elements = shape.numel()
        return self.layout.bytes_of(elements, vector_length(self.granularity, self.group_size, elements, shape[-1]))


@dataclass(frozen=True)
class Quantized:
    """A tensor on a grid: `codes` and `parameters` by vectors, and the `shape` that it has."""

    grid: Grid
    codes: Tensor
    parameters: Parameters
    shape: torch.Size

    def values(self) -> Tensor:
        """The float32 values [shape] that the codes stand for. Gives the codes up: they become the values."""
        return self.grid.decoded(self.codes, self.parameters).reshape(self.shape)


@dataclass(frozen=True)
class IntegerGrid(Grid):
    """Whole numbers of `bits`: x_q = round(x / s) + z (Jacob et al. 2018, eq. 1).

    Symmetric grids have codes -(2^(b-1) - 1) ... 2^(b-1) - 1, s = absmax / (2^(b-1) - 1) and no z (Xiao et al. 2023,
    SmoothQuant, eq. 1); asymmetric ones 0 ... 2^b - 1 from the smallest value to the largest, with zero on the grid.
    `clip` says how far the grid reaches: to the largest value, to a `percentile` of them, or as far as makes the sum
    of squared errors smallest, each weighed by its value's importance where that is known. Scales of groups are stored
    in float16, rounded up so that no value comes to lie beyond the grid; all others in float32.
    """

    bits: int = 8
    symmetric: bool = True
    clip: Clip = "absmax"
    percentile: float | None = None

    @property
    def codes(self) -> tuple[int, int]:
        """The smallest and the largest code."""
        largest = 2 ** (self.bits - 1) - 1
        return (-largest, largest) if self.symmetric else (0, 2**self.bits - 1)

    @property
    def layout(self) -> Layout:
        """Packed codes with the scales and zero points of vectors."""
        return integer_layout(self.bits, self.granularity, self.symmetric)

    def _reaching(self, low: Tensor, high: Tensor) -> Parameters:
        """The grid that reaches from `low` to `high`; symmetric grids reach `high` both ways."""
        first, last = self.codes
        if self.symmetric:
            scale = high.clamp(min=SMALLEST_ABSMAX) / last
        else:
            scale = (high.clamp(min=0) - low.clamp(max=0)).clamp(min=SMALLEST_ABSMAX) / last
        if self.granularity == "per_group":
            scale = _half_not_below(scale)
        return Parameters(scale, None if self.symmetric else (-low.clamp(max=0) / scale).round_().clamp_(first, last))

    def _ends(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        if self.clip == "percentile":
            assert self.percentile is not None
            share = self.percentile / 100
            if self.symmetric:
                high = quantile(vectors.abs(), share)
                return high, high
            return quantile(vectors, 1 - share), quantile(vectors, share)
        if self.symmetric:
            high = absmax(vectors)
            return high, high
        return vectors.amin(dim=-1, keepdim=True), vectors.amax(dim=-1, keepdim=True)

    def parameters(self, values: Tensor, importance: Tensor | None = None) -> Parameters:
        """Scales and zero points that suit float32 vectors."""
        low, high = self._ends(values)
        if self.clip != "mse":
            return self._reaching(low, high)
        tried = [self._reaching(low * ratio, high * ratio) for ratio in CLIP_RATIOS]
        errors = [self._squared_error(values, parameters, importance) for parameters in tried]
        best = torch.stack(errors).argmin(dim=0, keepdim=True)

        def chosen(candidates: list[Tensor]) -> Tensor:
            return torch.stack(candidates).gather(0, best)[0]

        zero_points = [parameters.zero_point for parameters in tried if parameters.zero_point is not None]
        return Parameters(
            chosen([parameters.scale for parameters in tried]), chosen(zero_points) if zero_points else None
        )

    def _squared_error(self, values: Tensor, parameters: Parameters, importance: Tensor | None) -> Tensor:
        errors = self.decoded(self.nearest(values, parameters), parameters).sub_(values).square_()
        return (errors if importance is None else errors.mul_(importance)).sum(dim=-1, keepdim=True)

    def nearest(self, values: Tensor, parameters: Parameters, out: Tensor | None = None) -> Tensor:
        """The nearest codes, as whole numbers in float32, ties to even; written to `out` where that is given."""
        return self._unbounded(values, parameters, out).clamp_(*self.codes)

    def own_codes(self, values: Tensor, parameters: Parameters, out: Tensor | None = None) -> Tensor:
        """As `nearest`, without a look at the ends where absmax itself is the last code."""
        all_within = self.symmetric and self.clip == "absmax"
        return self._unbounded(values, parameters, out) if all_within else self.nearest(values, parameters, out)

    def _unbounded(self, values: Tensor, parameters: Parameters, out: Tensor | None) -> Tensor:
        codes = torch.div(values, parameters.scale, out=out).round_()
        return codes if parameters.zero_point is None else codes.add_(parameters.zero_point)


def absmax(vectors: Tensor) -> Tensor:
    """The largest magnitude of each vector: [..., 1]. Two reductions write nothing, so they are faster than abs()."""
    return torch.maximum(vectors.amax(dim=-1, keepdim=True), vectors.amin(dim=-1, keepdim=True).neg_())


def _half_not_below(scale: Tensor) -> Tensor:
    """The smallest float16 values that are not below positive float32 ones, as float32."""
    half = scale.half()
    return torch.where(half < scale, (half.view(torch.int16) + 1).view(torch.half), half).float()


def quantile(vectors: Tensor, share: float) -> Tensor:
    """The value below which a `share` of each vector lies, linearly interpolated: [..., 1].

    torch.quantile refuses vectors of more than 2^24 values, so this one sorts.
    """
    ordered = vectors.sort(dim=-1).values
    place = share * (vectors.shape[-1] - 1)
    below = int(place)
    above = min(below + 1, vectors.shape[-1] - 1)
    low, high = (ordered[..., index, None] for index in (below, above))
    return low + (high - low) * (place - below)
