"""What an object keeps alive: every tensor that can be reached from it."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


def held_tensors(owner: object, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Plain tensors that an object holds, in whatever it is made of; tensors made of others are taken apart.

    Modules are left out, which hold a model's weights, and so are single numbers.
    """
    seen = set() if seen is None else seen
    if id(owner) in seen or isinstance(owner, nn.Module | type | str | bytes):
        return
    seen.add(id(owner))
    parts: Any = ()
    if isinstance(owner, Tensor):
        if hasattr(owner, "__tensor_flatten__"):  # a subclass that stores its values in other tensors
            parts = [getattr(owner, name) for name in owner.__tensor_flatten__()[0]]
        elif owner.ndim:
            yield owner
    elif isinstance(owner, dict):
        parts = owner.values()
    elif isinstance(owner, list | tuple | set):
        parts = owner
    elif hasattr(owner, "__dict__"):
        parts = vars(owner).values()
    for part in parts:
        yield from held_tensors(part, seen)


def held_bytes(owner: object) -> int:
    """Exact bytes that an object keeps alive in tensors: of views the whole of what they view, shared ones once."""
    storages = [tensor.untyped_storage() for tensor in held_tensors(owner)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
