"""JSON schemas as they are meant: 512.0 is no integer, and .nan is no number within any bounds."""

import math
from collections.abc import Iterable
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

_TYPES: Final = Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
        "number": lambda _, value: (
            isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf
        ),
    }
)
StrictValidator: Final = extend(Draft202012Validator, type_checker=_TYPES)  # type: ignore[no-untyped-call]


LONGEST_VALUE: Final = 100  # characters of a value that a message quotes
LONGEST_LIST: Final = 600


def shortened(text: str, longest: int) -> str:
    """The text on one line without control characters, its end left out where it is longer than so many characters."""
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


def brief(value: Any) -> str:
    """A value as a message quotes it: on one line, and not the whole of a long one."""
    return shortened(repr(value), LONGEST_VALUE)


def listed(names: Iterable[object]) -> str:
    """Names one after the other as a message lists them, the last left out where they are many."""
    return shortened(", ".join(map(str, names)), LONGEST_LIST)


def dotted(path: Iterable[str | int]) -> str:
    """Where a value stands, as a user writes it: `models.tiny.files[0]`."""
    text = ""
    for part in path:
        named = part if isinstance(part, int) else shortened(part, LONGEST_VALUE)
        text += f"[{named}]" if isinstance(part, int) else f".{named}" if text else str(named)
    return text
