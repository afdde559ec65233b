"""How many bytes a packed cache takes by theory; needs no torch."""

import math
from dataclasses import dataclass

GRID_BYTES = 4  # zero point and span of a group, in float16


@dataclass(frozen=True)
class Heads:
    """What a token puts into a cache: keys and values of so many layers, heads and channels, in `float_bytes` each."""

    layers: int
    kv_heads: int
    channels: int
    float_bytes: int

    @property
    def numbers_per_token(self) -> int:
        """Numbers that are kept of a token."""
        return 2 * self.layers * self.kv_heads * self.channels


def packed_bytes(heads: Heads, tokens: int, bits: float, *, group_size: int, per_channel: bool) -> float:
    """Bytes of so many tokens whose codes have `bits` on average, without spare room.

    Codes take numbers · bits / 8. Values have a grid for every `group_size` channels of a token at most, and so have
    keys, unless they are grouped `per_channel`: then for every `group_size` tokens of a channel, and the last tokens,
    which don't fill a group, wait in float.
    """
    unit = group_size if per_channel else 1
    packed = tokens // unit * unit
    rows = heads.layers * heads.kv_heads
    token_grids = rows * packed * math.ceil(heads.channels / group_size)
    key_grids = rows * heads.channels * packed // group_size if per_channel else token_grids
    waiting = (tokens - packed) * heads.numbers_per_token * heads.float_bytes
    return packed * heads.numbers_per_token * bits / 8 + (token_grids + key_grids) * GRID_BYTES + waiting
