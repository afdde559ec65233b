"""Tables of many models and schemes, of which few are in memory at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TypeVar

Key = TypeVar("Key")
Content = TypeVar("Content")

KEPT = 2  # a table and the one that it is compared with


class OnDemand(Mapping[Key, Content]):
    """A mapping whose values are read when they are asked for, and forgotten when two others have been.

    What goes through it once holds the memory of two values, however many there are.
    """

    def __init__(self, keys: Iterable[Key], read: Callable[[Key], Content]) -> None:
        """`read` gives the value of a key of `keys`."""
        self._keys = dict.fromkeys(keys)
        self._read = lru_cache(maxsize=KEPT)(read)

    def __getitem__(self, key: Key) -> Content:
        if key not in self._keys:
            raise KeyError(key)
        return self._read(key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
