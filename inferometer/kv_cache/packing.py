"""Keys and values on few bits: codes without gaps between them, and the grids that give codes their meaning.

A group of values has a zero point z, its smallest value, and a span r up to its largest; a code of b bits is
x_q = round((x - z) / r * (2^b - 1)) and stands for x' = z + r * x_q / (2^b - 1). That is the grid of KIVI (Liu et al.
2024, eq. 1) with its scale written as r / (2^b - 1), so that values of one group may have codes of different widths.
Unlike a whole-numbered zero point, this one lets a grid leave zero out, which keys need: some of their channels lie far
from it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

# Bits of a code by where they lie: each plane is packed into bytes of its own, so that 3 bits leave no gap either.
PLANES = {2: (2,), 3: (2, 1), 4: (4,), 8: (8,)}
WIDTHS = tuple(PLANES)


@dataclass(frozen=True)
class Grid:
    """The `zero_point` and `span` of each group of values, in float16.

    Of states [..., tokens, channels] a group is `group` neighbouring channels of a token: [..., tokens, groups, 1]; or,
    where `per_channel`, the values of `group` neighbouring tokens in a channel: [..., groups, 1, channels].
    """

    zero_point: Tensor
    span: Tensor


def packed(codes: Tensor, bits: int) -> tuple[Tensor, ...]:
    """Codes [..., count], uint8 below 2^bits, as planes of bytes: uint8 [..., ceil(count * plane bits / 8)] each.

    A byte of k codes holds every m-th one, m bytes in all, so that unpacking writes k whole pieces.
    """
    planes, low = [], 0
    for width in PLANES[bits]:
        slots = 8 // width
        size = -(-codes.shape[-1] // slots)
        digits = (codes >> low) & (2**width - 1)
        slotted = pad(digits, (0, slots * size - codes.shape[-1])).unflatten(-1, (slots, size))
        plane = slotted[..., 0, :].clone()
        for slot in range(1, slots):
            plane |= slotted[..., slot, :] << (slot * width)
        planes.append(plane)
        low += width
    return tuple(planes)


def _digits(plane: Tensor, width: int) -> Tensor:
    """All digits of a plane [..., bytes], slot after slot: uint8 [..., slots * bytes].

    Eight bytes are shifted at once where that many make up the plane: what a byte gets from its neighbour is masked.
    """
    words = plane if plane.shape[-1] % 8 else plane.view(torch.int64)
    shifts = torch.arange(0, 8, width, dtype=words.dtype, device=plane.device)
    digits = words[..., None, :] >> shifts[:, None]
    digits &= torch.full((8,), 2**width - 1, dtype=torch.uint8, device=plane.device).view(words.dtype)[0]
    return digits.flatten(-2).view(torch.uint8)


def unpack_into(codes: Tensor, planes: tuple[Tensor, ...], bits: int) -> None:
    """Write the codes that `packed` made planes of to `codes` [..., count], of any dtype."""
    (plane, *further), (width, *_) = planes, PLANES[bits]
    if further:
        low, high = (_digits(own, own_width) for own, own_width in zip(planes, PLANES[bits], strict=True))
        count = codes.shape[-1]
        codes.copy_(low[..., :count] | high[..., :count] << width)
        return
    size = plane.shape[-1]
    for slot in range(8 // width):
        piece = codes[..., slot * size : (slot + 1) * size]
        digits = plane[..., : piece.shape[-1]]
        if slot:
            digits = digits >> (slot * width)
        piece.copy_(digits & (2**width - 1) if (slot + 1) * width < 8 else digits)


def unpacked(planes: tuple[Tensor, ...], bits: int, count: int) -> Tensor:
    """The codes [..., count] that `packed` made planes of: uint8."""
    codes = planes[0].new_empty(*planes[0].shape[:-1], count)
    unpack_into(codes, planes, bits)
    return codes


def grouped(states: Tensor, group: int, *, per_channel: bool) -> Tensor:
    """States [..., tokens, channels] as a view in which a Grid spreads over the values of its groups."""
    view: Tensor = states.unflatten(-2, (-1, group)) if per_channel else states.unflatten(-1, (-1, group))
    return view


def _half(values: Tensor, *, up: bool) -> Tensor:
    """The nearest float16 values that are not below float32 `values`, or not above: no value comes to lie outside."""
    half = values.half()
    beyond = half.float() < values if up else half.float() > values
    step = torch.where(half.signbit(), -1, 1).to(torch.int16) * (1 if up else -1)  # of a magnitude's bits
    return torch.where(beyond, (half.view(torch.int16) + step).view(torch.half), half)


def grid_of(states: Tensor, group: int, *, per_channel: bool, left_out: Tensor | None = None) -> Grid:
    """The grid that suits float32 states [..., tokens, channels].

    `group` divides the channels, or the tokens where `per_channel`. Tokens that are `left_out` [tokens] widen no group.
    """
    low = high = states
    if left_out is not None:
        low, high = (states.masked_fill(left_out[:, None], end) for end in (torch.inf, -torch.inf))
    dim = -2 if per_channel else -1
    zero_point = _half(grouped(low, group, per_channel=per_channel).amin(dim, keepdim=True), up=False)
    most = grouped(high, group, per_channel=per_channel).amax(dim, keepdim=True)
    span = _half((most - zero_point.float()).clamp_(min=0), up=True)
    return Grid(zero_point.masked_fill(zero_point.isinf(), 0), span)


def shares_of(states: Tensor, grid: Grid, group: int, *, per_channel: bool) -> Tensor:
    """Where states [..., tokens, channels] lie on their grid, from 0 at its zero point to 1 at its other end."""
    span = grid.span.float()
    values = grouped(states, group, per_channel=per_channel) - grid.zero_point.float()
    shares: Tensor = (values / torch.where(span > 0, span, 1)).reshape(states.shape).clamp_(0, 1)
    return shares


def coded(shares: Tensor, bits: int) -> Tensor:
    """The nearest codes to shares of a span, ties to even: uint8."""
    codes: Tensor = (shares * (2**bits - 1)).round_().to(torch.uint8)
    return codes
