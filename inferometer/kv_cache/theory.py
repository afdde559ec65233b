"""What a cache is packed like unless its policy says otherwise, and the bytes that it takes; needs no torch."""

import math
from dataclasses import dataclass
from typing import Literal

from inferometer.heads import Heads

Keys = Literal["per_token", "per_channel"]

KEYS: Keys = "per_channel"
GROUP_SIZE = 64
GRID_BYTES = 4  # zero point and span of a group, in float16


@dataclass(frozen=True)
class Kept:
    """What a cache keeps of a token: keys and values of so many layers, each number in `float_bytes` if not rounded."""

    layers: int
    heads: Heads
    float_bytes: int

    @property
    def numbers_per_token(self) -> int:
        """Numbers that are kept of a token."""
        return 2 * self.layers * self.heads.kv_heads * self.heads.head_dim


def packed_bytes(kept: Kept, tokens: int, bits: float, *, group_size: int, per_channel: bool) -> float:
    """Bytes of so many tokens whose codes have `bits` on average, without spare room.

    Codes take numbers · bits / 8. Values have a grid for every `group_size` channels of a token at most, and so have
    keys, unless they are grouped `per_channel`: then for every `group_size` tokens of a channel, and the last tokens,
    which don't fill a group, wait in float.
    """
    unit = group_size if per_channel else 1
    packed = tokens // unit * unit
    rows, channels = kept.layers * kept.heads.kv_heads, kept.heads.head_dim
    token_grids = rows * packed * math.ceil(channels / group_size)
    key_grids = rows * channels * packed // group_size if per_channel else token_grids
    waiting = (tokens - packed) * kept.numbers_per_token * kept.float_bytes
    return packed * kept.numbers_per_token * bits / 8 + (token_grids + key_grids) * GRID_BYTES + waiting
