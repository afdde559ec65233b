"""The heads of one layer's attention; needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inferometer.errors import InferometerError


@dataclass(frozen=True)
class Heads:
    """Heads that ask, heads of keys and values (each shared by as many of the former), and numbers in each."""

    query_heads: int
    kv_heads: int
    head_dim: int


def heads_of(fields: Mapping[str, Any], what: str) -> Heads:
    """The heads that a config.json states, under the names of any family. Raises InferometerError where it does not."""

    def stated(*names: str) -> int | None:
        return next((int(fields[name]) for name in names if fields.get(name)), None)

    heads, width = stated("num_attention_heads", "n_head"), stated("hidden_size", "n_embd")
    if heads is None or width is None:
        raise InferometerError(f"{what} states no number of heads and no width, without which attention has no size.")
    return Heads(heads, stated("num_key_value_heads") or heads, stated("head_dim") or width // heads)
