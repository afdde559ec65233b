"""JSON schemas as they are meant: 512.0 is no integer, and .nan is no number within any bounds."""

import math
from collections.abc import Iterable
from typing import Final

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

_TYPES: Final = Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
        "number": lambda _, value: (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        ),
    }
)
StrictValidator: Final = extend(Draft202012Validator, type_checker=_TYPES)  # type: ignore[no-untyped-call]


def dotted(path: Iterable[str | int]) -> str:
    """Where a value stands, as a user writes it: `models.tiny.files[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
