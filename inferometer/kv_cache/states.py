"""The packed keys or values of a layer: codes by their widths, and grids in the order of the text."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from inferometer.kv_cache.packing import PLANES, coded, grid_of, grouped, packed, shares_of, unpack_into, unpacked

FLOAT = 0  # in place of a number of bits: the token stays in the model's dtype
ROOM_TOKENS = 8  # by which storage grows: few copies as single tokens come, and little that stands empty

Run = tuple[int, int]  # bits, and how many neighbouring tokens have them


class Rows:
    """A tensor [batch, heads, rows, ...] that grows along its rows, `step` of them at a time."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.length = 0
        self.buffer: Tensor | None = None

    def append(self, rows: Tensor) -> None:
        """Add rows behind the others; where there is no room for them, move to a larger tensor first."""
        length = self.length + rows.shape[2]
        if self.buffer is None or length > self.buffer.shape[2]:
            capacity = -(-length // self.step) * self.step
            buffer = rows.new_empty(*rows.shape[:2], capacity, *rows.shape[3:])
            if self.buffer is not None:
                buffer[:, :, : self.length] = self.filled
            self.buffer = buffer
        self.buffer[:, :, self.length : length] = rows
        self.length = length

    @property
    def filled(self) -> Tensor:
        """The rows that are held, as a view."""
        assert self.buffer is not None
        return self.buffer[:, :, : self.length]

    def drop_first(self, count: int) -> None:
        """Give up the first rows."""
        self.buffer, self.length = self.filled[:, :, count:].clone(), self.length - count

    def select(self, sequences: Tensor) -> None:
        """Keep these sequences of the batch, in this order, some perhaps several times."""
        if self.buffer is not None:
            self.buffer = self.buffer.index_select(0, sequences)


class Order:
    """The widths of packed tokens in the order of the text, as runs of neighbours that share one.

    `tokens` are packed, and `widths` are the different ones, in the order in which they came.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all tokens."""
        self.runs: list[Run] = []
        self.tokens = 0
        self.widths: list[int] = []
        self._places: dict[int, slice | Tensor] = {}
        self._steps: Tensor | None = None

    def extend(self, runs: Iterable[Run], device: torch.device) -> None:
        """Add tokens behind the others."""
        for bits, count in runs:
            if self.runs and self.runs[-1][0] == bits:
                self.runs[-1] = (bits, self.runs[-1][1] + count)
            elif count:
                self.runs.append((bits, count))
        self._index(device)

    def cut(self, tokens: int, device: torch.device) -> None:
        """Keep the first `tokens`."""
        kept, self.runs = self.runs, []
        left = tokens
        for bits, count in kept:
            if left:
                self.runs.append((bits, min(count, left)))
                left -= min(count, left)
        self._index(device)

    def bits(self, start: int) -> list[int]:
        """The widths of all tokens from `start` on."""
        return [bits for bits, count in self.runs for _ in range(count)][start:]

    def demote(self, count: int, bits: int, fewer: int, device: torch.device) -> None:
        """The first tokens of a width have `fewer` bits from now on; all of fewer bits stand before them."""
        found = next(index for index, (width, _) in enumerate(self.runs) if width == bits)
        later = self.runs[found:]
        self.runs = self.runs[:found]
        self.extend([(fewer, count), (bits, later[0][1] - count), *later[1:]], device)

    def _index(self, device: torch.device) -> None:
        self.tokens = sum(count for _, count in self.runs)
        self.widths = list(dict.fromkeys(bits for bits, _ in self.runs))
        self._places, self._steps, start = {}, None, 0
        if len(self.widths) == len(self.runs):  # each width in one piece
            for bits, count in self.runs:
                self._places[bits] = slice(start, start + count)
                start += count
        else:
            bits, counts = torch.tensor(self.runs, device=device).T
            widths = bits.repeat_interleave(counts)
            self._places = {width: (widths == width).nonzero()[:, 0] for width in self.widths}
        if len(set(self.widths) - {FLOAT}) > 1:
            self._steps = torch.ones(self.tokens, 1, device=device)
            for width, place in self._places.items():
                self._steps[place] = 1 / max(2**width - 1, 1)

    def place(self, bits: int) -> slice | Tensor:
        """Where the tokens of a width stand."""
        return self._places[bits]

    @property
    def steps(self) -> Tensor | float:
        """The share of a span that one step of a code is: of each token [tokens, 1], or of all."""
        if self._steps is not None:
            return self._steps
        return 1 / (2 ** max(self.widths) - 1) if max(self.widths) else 1.0


def _put(target: Tensor, place: slice | Tensor, source: Tensor) -> None:
    """Write tokens [batch, heads, tokens, ...] to their places in `target`."""
    if isinstance(place, slice):
        target[:, :, place] = source
    else:
        target.index_copy_(2, place, source)


_WORKSPACES: dict[torch.device, Tensor] = {}


def _workspace(shape: torch.Size, device: torch.device) -> Tensor:
    """Float32 room for the arithmetic of one tensor, whose values the next call overwrites.

    Memory that is still in the caches: fresh memory for each layer would take longer than the arithmetic in it.
    """
    held = _WORKSPACES.get(device)
    if held is None or held.numel() < shape.numel():
        held = _WORKSPACES[device] = torch.empty(shape.numel(), device=device)
    return held[: shape.numel()].view(shape)


class PackedStates:
    """States [batch, heads, tokens, channels] whose tokens have widths of their own; see packing.Grid.

    Tokens are added in multiples of `unit`. Those of width FLOAT are kept as they are. Storage grows by `room_tokens`.
    """

    def __init__(self, group: int, *, per_channel: bool, room_tokens: int = ROOM_TOKENS) -> None:
        self.unit = group if per_channel else 1
        self._group = group
        self._per_channel = per_channel
        self._room_tokens = room_tokens
        self._zero_point, self._span = (Rows(max(room_tokens // self.unit, 1)) for _ in range(2))
        self._planes: dict[int, list[Rows]] = {}
        self._channels = 0

    @property
    def _rows(self) -> list[Rows]:
        return [self._zero_point, self._span, *(rows for planes in self._planes.values() for rows in planes)]

    def append(self, states: Tensor, runs: Sequence[Run]) -> None:
        """Add tokens behind the others, with their widths."""
        self._channels = states.shape[-1]
        own = Order()
        own.extend(runs, states.device)
        left_out = None
        if FLOAT in own.widths:
            left_out = torch.zeros(states.shape[2], dtype=torch.bool, device=states.device)
            left_out[own.place(FLOAT)] = True
        values = states.float()
        grid = grid_of(values, self._group, per_channel=self._per_channel, left_out=left_out)
        self._zero_point.append(grid.zero_point)
        self._span.append(grid.span)
        shares = shares_of(values, grid, self._group, per_channel=self._per_channel)
        for bits in own.widths:
            place = own.place(bits)
            planes = (states[:, :, place],) if bits == FLOAT else packed(coded(shares[:, :, place], bits), bits)
            for rows, plane in zip(self._planes_of(bits), planes, strict=True):
                rows.append(plane)

    def _planes_of(self, bits: int) -> list[Rows]:
        planes = 1 if bits == FLOAT else len(PLANES[bits])
        return self._planes.setdefault(bits, [Rows(self._room_tokens) for _ in range(planes)])

    def write_to(self, out: Tensor, order: Order) -> None:
        """Write what is held to `out` [batch, heads, tokens, channels], by the arithmetic of float32."""
        own = out if out.dtype == torch.float32 else _workspace(out.shape, out.device)
        self._write_codes(own, order)
        steps, span = order.steps, self._span.filled.float()
        if isinstance(steps, Tensor):
            own.mul_(steps)
        else:
            span = span * steps
        values = grouped(own, self._group, per_channel=self._per_channel)
        values.mul_(span).add_(self._zero_point.filled.float())
        if own is not out:
            out.copy_(own)
        if FLOAT in order.widths:
            _put(out, order.place(FLOAT), self._planes[FLOAT][0].filled)

    def _write_codes(self, out: Tensor, order: Order) -> None:
        """Write the codes to float32 `out` [batch, heads, tokens, channels], and zeros where there are none."""
        if len(order.runs) == 1 and order.widths != [FLOAT]:
            unpack_into(out, self._planes_filled(order.widths[0]), order.widths[0])
            return
        codes = torch.zeros(out.shape, dtype=torch.uint8, device=out.device)
        for bits in order.widths:
            if bits != FLOAT:
                _put(codes, order.place(bits), unpacked(self._planes_filled(bits), bits, self._channels))
        out.copy_(codes)

    def _planes_filled(self, bits: int) -> tuple[Tensor, ...]:
        return tuple(rows.filled for rows in self._planes[bits])

    def demote(self, count: int, bits: int, fewer: int) -> None:
        """Round the first tokens of a width again, to `fewer` bits of the same grid."""
        rows = self._planes[bits]
        codes = unpacked(tuple(own.filled[:, :, :count] for own in rows), bits, self._channels)
        planes = packed(coded(codes / (2**bits - 1), fewer), fewer)
        for own, plane in zip(self._planes_of(fewer), planes, strict=True):
            own.append(plane)
        for own in rows:
            own.drop_first(count)

    def crop(self, order: Order) -> None:
        """Keep the tokens of an order that was cut, a multiple of `unit`."""
        self._zero_point.length = self._span.length = order.tokens // self.unit
        for bits, planes in self._planes.items():
            tokens = sum(count for width, count in order.runs if width == bits)
            for rows in planes:
                rows.length = tokens

    def select(self, sequences: Tensor) -> None:
        """Keep these sequences of the batch, in this order, some perhaps several times."""
        for rows in self._rows:
            rows.select(sequences)
