"""The heads of one layer's attention; needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heads:
    """Heads that ask, heads of keys and values (each shared by as many of the former), and numbers in each."""

    query_heads: int
    kv_heads: int
    head_dim: int

    @property
    def group(self) -> int:
        """Query heads that share keys and values."""
        return self.query_heads // self.kv_heads
