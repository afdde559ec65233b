"""Progress bars on long work, only where a person is watching."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], description: str) -> Iterator[Item]:
    """Iterate over `items` with a bar on standard error when that is a terminal, silently otherwise."""
    yield from tqdm(items, desc=description, disable=None, leave=False, dynamic_ncols=True)
