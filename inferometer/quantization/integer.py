"""Linear layers that compute on codes: what `simulated` only imitates is stored and multiplied as integers here.

Codes and scales come from the same grids, by the same arithmetic, so both kinds of layer agree to the last bit where
sums of codes stay below 2^24. Only these layers may be timed.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from inferometer.errors import InferometerError
from inferometer.quantization.grids import Grid, IntegerGrid, Parameters, Quantized
from inferometer.quantization.kernels import Kernel, fastest_kernel

CODE_BITS = 8  # at most, of codes in an integer product
NO_FLOAT_PRODUCT = "the integer engine has no product for float formats; use the simulated engine."
FEWEST_ROWS = 128  # of a piece of a product: with fewer, reading the weight again costs more than the caches give
PRODUCT_PIECE = 2  # a piece of a product may be this much larger than one of activations: it is touched once
PACKED_ROWS = 16  # torch's product with packed weights is for decoding; with more rows unpacking pays
PACKED_GROUPS = (256, 128, 64, 32)  # the group sizes that it knows
PACKED_BLOCKS = (64, 32, 16)  # the outputs that it packs together, by the width of the processor's registers


@dataclass(frozen=True)
class Rows:
    """Activations as codes: int8 [rows, channels], with a scale and perhaps a shift for each row, float32 [rows, 1].

    The values are scale · (codes + shift): codes of asymmetric grids are moved down to fit int8, and `shift` makes up
    for that and for the zero point. For a simulation the same codes are float32.
    """

    codes: Tensor
    scales: Tensor
    shift: Tensor | None

    def piece(self, rows: slice) -> "Rows":
        """Some of the rows."""
        return Rows(self.codes[rows], self.scales[rows], None if self.shift is None else self.shift[rows])


def why_not_coded(grid: Grid, *, static: bool) -> str | None:
    """Why activations on a grid, with static or dynamic parameters, have no place in an integer product; or None."""
    if not isinstance(grid, IntegerGrid) or grid.bits > CODE_BITS:
        return f"the integer engine needs activations on an integer grid of at most {CODE_BITS} bits."
    if grid.granularity != ("per_tensor" if static else "per_token"):
        return (
            "the integer engine needs a scale for each row of activations, or a static one for all of them; "
            f"granularity {grid.granularity} with {'a static' if static else 'a dynamic'} range is neither."
        )
    return None


def why_not_multiplied(grid: Grid) -> str | None:
    """Why weights on a grid can't be factors of an integer product; or None."""
    if not isinstance(grid, IntegerGrid):
        return NO_FLOAT_PRODUCT
    if grid.bits > CODE_BITS or not grid.symmetric or grid.granularity == "per_group":
        return (
            f"the integer engine multiplies integers with weights of at most {CODE_BITS} bits that are symmetric and "
            f"have a scale per channel or one for all, not with {grid.bits} bits, "
            f"{'symmetric' if grid.symmetric else 'asymmetric'}, {grid.granularity}."
        )
    return None


class ActivationCoder:
    """Turns activations into codes of an integer grid, once for all layers that read the same tensor (q, k and v).

    The grid has at most 8 bits; it is `per_token`, or `per_tensor` with `static` parameters found beforehand. Codes are
    given as `dtype`. Raises InferometerError for any other grid.
    """

    def __init__(self, grid: Grid, static: Parameters | None = None, dtype: torch.dtype = torch.int8) -> None:
        reason = why_not_coded(grid, static=static is not None)
        if reason:
            raise InferometerError(reason)
        assert isinstance(grid, IntegerGrid)
        self.grid = grid
        self.static = static
        self.dtype = dtype
        self._last: tuple[Tensor, Rows] | None = None

    def __call__(self, values: Tensor, piece_values: int | None) -> Rows:
        """The codes of values [..., channels]; the very same tensor, asked again, is answered from memory.

        Rows are worked on in pieces of about `piece_values` values, which stay in the processor's caches.
        """
        if self._last is None or self._last[0] is not values:
            self._last = (values, self._coded(values, piece_values))
        return self._last[1]

    def _coded(self, values: Tensor, piece_values: int | None) -> Rows:
        values = values.reshape(-1, values.shape[-1])
        count, channels = values.shape
        length = max(piece_values // channels, 1) if piece_values else count
        codes = values.new_empty(count, channels, dtype=self.dtype)
        scales = values.new_empty(count, 1, dtype=torch.float32)
        shift = None if self.grid.symmetric else torch.empty_like(scales)
        scratch = (
            None if self.dtype == torch.float32 else codes.new_empty(min(length, count), channels, dtype=torch.float32)
        )
        middle = 2 ** (self.grid.bits - 1)
        nearest = self.grid.nearest if self.static else self.grid.own_codes
        for piece in _pieces(count, length):
            part = values[piece]
            own = codes[piece] if scratch is None else scratch[: len(part)]
            floats = part if part.dtype == torch.float32 else own.copy_(part)
            parameters = self.static or self.grid.parameters(floats)
            found = nearest(floats, parameters, out=own)
            scales[piece] = parameters.scale
            if shift is not None:
                assert parameters.zero_point is not None
                shift[piece] = middle - parameters.zero_point
                found.sub_(middle)
            if scratch is not None:
                codes[piece] = found
        return Rows(codes, scales, shift)


def _pieces(count: int, length: int) -> list[slice]:
    """Slices of at most `length`, at least 1, that cover `count` rows; an empty one for no rows."""
    length = max(length, 1)
    return [slice(start, start + length) for start in range(0, max(count, 1), length)]


class IntegerLinear(nn.Module):
    """A linear layer whose weight is int8 codes, multiplied as integers with the codes of its inputs.

    The codes lie in the layout of the `kernel`, outside of the module's parameters and buffers, so that no cast of
    the model reaches them. Outputs have the dtype of the inputs.
    """

    def __init__(self, weight: Quantized, bias: Tensor | None, activations: ActivationCoder, kernel: Kernel) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        codes = weight.codes.reshape(weight.shape).to(torch.int8).contiguous()  # onednn takes strides for granted
        scales = weight.parameters.scale.reshape(-1).expand(self.outputs).contiguous()
        self.bias = bias
        self.activations = activations
        self.kernel = kernel.name
        self.stored_bytes = codes.nbytes + weight.parameters.scale.nbytes
        self._piece_values = kernel.cached_values
        self._multiply = kernel.prepare(codes, scales)
        self._sums: Tensor | None = None
        if not activations.grid.symmetric:
            self._sums = codes.sum(dim=1, dtype=torch.float32).mul_(scales)
            self.stored_bytes += self._sums.nbytes

    def _scaled(self, rows: Rows, out: Tensor | None = None) -> Tensor:
        """The outputs for rows in float32, written to `out` where that is given and else over the product."""
        product = self._multiply(rows.codes)
        out = product if out is None else out
        if self._sums is not None:
            assert rows.shift is not None
            product.addcmul_(rows.shift, self._sums)
        if self.bias is None:
            return torch.mul(product, rows.scales, out=out)
        return torch.addcmul(self.bias.float(), product, rows.scales, out=out)

    def forward(self, values: Tensor) -> Tensor:
        """As nn.Linear: [..., inputs] to [..., outputs]."""
        rows = self.activations(values, self._piece_values)
        count = len(rows.codes)
        length = max(PRODUCT_PIECE * self._piece_values // self.outputs, FEWEST_ROWS) if self._piece_values else count
        pieces = _pieces(count, length)
        if len(pieces) == 1:
            out = self._scaled(rows).to(values.dtype)
        else:
            out = values.new_empty(count, self.outputs)
            for piece in pieces:
                if out.dtype == torch.float32:
                    self._scaled(rows.piece(piece), out[piece])
                else:
                    out[piece] = self._scaled(rows.piece(piece))
        return out.reshape(*values.shape[:-1], self.outputs)


def packed_nibbles(codes: Tensor, block: int) -> Tensor:
    """Codes 0 ... 15 as uint8 [outputs, inputs], two a byte: uint8 [outputs / block, inputs, block / 2].

    A byte holds an output of the first half of a block in its lower bits, and its partner of the second in the upper.
    """
    low, high = codes.unflatten(0, (-1, 2, block // 2)).transpose(2, 3).unbind(dim=1)
    packed: Tensor = low | high << 4
    return packed.contiguous()


def unpacked_nibbles(packed: Tensor) -> Tensor:
    """The codes 0 ... 15 that `packed_nibbles` packed: uint8 [outputs, inputs]."""
    halves = torch.stack((packed & 15, packed >> 4), dim=1)
    return halves.transpose(2, 3).flatten(end_dim=2)


@cache
def native_block(device: torch.device) -> int | None:
    """The block in which torch's own product with 4-bit weights packs here; None where it doesn't run or is wrong."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(16, (64, 64), generator=generator, dtype=torch.uint8)
    rows = torch.randint(-8, 9, (1, 64), generator=generator).to(device, torch.bfloat16)
    ones_and_zeros = torch.tensor([1.0, 0.0]).expand(1, 64, 2).to(device, torch.bfloat16).contiguous()
    for block in PACKED_BLOCKS:
        packed = packed_nibbles(codes.to(device), block)
        try:
            product = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed.view(64, -1), 64, ones_and_zeros)
        except (RuntimeError, NotImplementedError, AttributeError):
            return None
        exact = rows.cpu().double() @ (codes.double() - 8).T
        if torch.equal(product.cpu(), exact.bfloat16()):
            return block
    return None


class PackedLinear(nn.Module):
    """A linear layer that stores its weight as packed codes of 4 or 8 bits and multiplies it as floats of a `dtype`.

    The weight is unpacked and turned into floats for each product: that saves memory, not time. Where torch has a
    product with symmetric 4-bit weights for bfloat16, it serves few rows, and takes scales rounded to bfloat16.
    """

    def __init__(self, weight: Quantized, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        grid = weight.grid
        assert isinstance(grid, IntegerGrid)
        self.outputs, self.inputs = weight.shape
        self.bias = bias
        self.grid = grid
        self._vectors = weight.codes.shape
        scale, zero_point = weight.parameters.scale, weight.parameters.zero_point
        self._scale = scale.half() if grid.granularity == "per_group" else scale.clone()
        self._zero_point = None if zero_point is None else zero_point.to(torch.uint8)
        self._group, self._group_scales = 0, None
        codes = weight.codes.reshape(weight.shape)
        if grid.bits == 4:
            block = native_block(codes.device)
            if block and self.outputs % block == 0 and grid.symmetric and dtype == torch.bfloat16:
                self._group, self._group_scales = self._scales_of_groups(scale)
            block = block if self._group and block else 2
            padded = nn.functional.pad(codes + self._middle, (0, 0, 0, -self.outputs % block))
            self._codes = packed_nibbles(padded.to(torch.uint8), block)
        else:
            self._codes = codes.to(torch.int8 if grid.symmetric else torch.uint8)
        self.kernel = f"int4pack_mm up to {PACKED_ROWS} rows, unpacked above" if self._group else "unpacked"
        held = (self._codes, self._scale, self._zero_point, self._group_scales)
        self.stored_bytes = sum(tensor.nbytes for tensor in held if tensor is not None)

    @property
    def _middle(self) -> int:
        """What is added to 4-bit codes to make them positive."""
        return 8 if self.grid.bits == 4 and self.grid.symmetric else 0

    def _scales_of_groups(self, scale: Tensor) -> tuple[int, Tensor | None]:
        """Group size and scales as torch's product wants them: each with a number to be added, here 0."""
        scale = scale.reshape(-1, scale.shape[1])
        length = self.inputs // scale.shape[1]
        group = next((size for size in PACKED_GROUPS if length % size == 0), 0)
        if not group:
            return 0, None
        groups = scale.repeat_interleave(length // group, dim=1).expand(self.outputs, -1)
        return group, torch.stack((groups, torch.zeros_like(groups)), dim=-1).transpose(0, 1).bfloat16().contiguous()

    def weight(self, dtype: torch.dtype) -> Tensor:
        """The weight [outputs, inputs] as floats, by the arithmetic of the grid."""
        codes = unpacked_nibbles(self._codes)[: self.outputs] if self.grid.bits == 4 else self._codes
        floats = codes.float().sub_(self._middle).reshape(self._vectors)
        zero_point = None if self._zero_point is None else self._zero_point.float()
        values = self.grid.decoded(floats, Parameters(self._scale.float(), zero_point))
        return values.reshape(self.outputs, self.inputs).to(dtype)

    def forward(self, values: Tensor) -> Tensor:
        """As nn.Linear: [..., inputs] to [..., outputs]."""
        rows = values.reshape(-1, self.inputs)
        if not self._group or not 0 < len(rows) <= PACKED_ROWS:
            return nn.functional.linear(values, self.weight(values.dtype), self.bias)
        codes = self._codes.view(self.outputs, -1)
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, codes, self._group, self._group_scales)
        if self.bias is not None:
            product += self.bias
        return product.reshape(*values.shape[:-1], self.outputs)


def integer_layer(
    weight: Quantized, bias: Tensor | None, activations: ActivationCoder | None, dtype: torch.dtype
) -> IntegerLinear | PackedLinear:
    """The layer that computes on a quantized weight [outputs, inputs], in a model of `dtype`.

    With activations: weights on symmetric integer grids of at most 8 bits, `per_channel` or `per_tensor`, in an
    IntegerLinear. Without: integer grids of 4 or 8 bits of any granularity, in a PackedLinear.
    Raises InferometerError for anything else.
    """
    grid = weight.grid
    if activations is None:
        if not isinstance(grid, IntegerGrid):
            raise InferometerError(NO_FLOAT_PRODUCT)
        if grid.bits not in (4, 8):
            raise InferometerError(f"the integer engine packs weights of 4 or 8 bits, not of {grid.bits}.")
        return PackedLinear(weight, bias, dtype)
    reason = why_not_multiplied(grid)
    if reason:
        raise InferometerError(reason)
    return IntegerLinear(weight, bias, activations, fastest_kernel(weight.codes.device, *weight.shape))
