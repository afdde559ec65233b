"""YAML from anywhere: plain values only, and refused before aliases make a few lines into billions of values."""

import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from inferometer.errors import InferometerError
from inferometer.sources.reasons import reason_of

LARGEST = 1_000_000  # characters and values with every alias written out: sixty times the default study
DEEPEST = 32  # levels of lists and mappings
TOO_DEEP = f"it is nested more than {DEEPEST} levels deep"
TOO_LARGE = f"it stands for more than {LARGEST:,} characters and values"


def too_much(root: Any, parts_of: Callable[[Any], str | Iterable[Any]]) -> str | None:
    """Why a value is too deep or too large once every alias is written out, or None; takes time for what is stored.

    `parts_of` gives what a value consists of: its text, or further values. A value that holds itself is too deep.
    """
    known: dict[int, tuple[int, int]] = {}

    def measured(value: Any, room: int) -> tuple[int, int]:
        """Size and levels of a value that may have `room` more levels."""
        if id(value) not in known:
            if room == 0:
                raise RecursionError
            parts = parts_of(value)
            if isinstance(parts, str):
                known[id(value)] = 1 + len(parts), 1
            else:
                found = [measured(part, room - 1) for part in parts]
                known[id(value)] = (
                    1 + sum(size for size, _ in found),
                    1 + max((levels for _, levels in found), default=0),
                )
        if known[id(value)][1] > room:
            raise RecursionError
        return known[id(value)]

    try:
        size, _ = measured(root, DEEPEST)
    except RecursionError:
        return TOO_DEEP
    return TOO_LARGE if size > LARGEST else None


def parts_of_value(value: Any) -> str | Iterable[Any]:
    """What a plain value consists of, for `too_much`."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return value
    return value if isinstance(value, str) else ""


def _parts_of_node(node: yaml.Node) -> str | Iterable[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return str(node.value) if isinstance(node, yaml.ScalarNode) else node.value


def _content(text: str) -> Any:
    """The values of a YAML text; raises ValueError with the reason where it is too much."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if reason := too_much(node, _parts_of_node):
            raise ValueError(reason)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def read_yaml(path: Path, what: str) -> Any:
    """What a YAML file holds, without tags of Python's. Raises InferometerError naming the file as `what`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InferometerError(f"cannot read {what} {path}: it is not a file.")
        if status.st_size > LARGEST:
            raise InferometerError(f"cannot read {what} {path}: {TOO_LARGE}; shorten it.")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InferometerError(f"cannot read {what} {path}: it is not UTF-8; mend the file.") from error
    except OSError as error:
        raise InferometerError(f"cannot read {what} {path}: {error.strerror}.") from error
    try:
        return _content(text)
    except RecursionError as error:
        raise InferometerError(f"cannot read {what} {path}: {TOO_DEEP}; mend the file.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise InferometerError(f"cannot read {what} {path}: it is not plain YAML{line}; mend the file.") from error
    except Exception as error:  # a day such as 2020-99-99 fails in whatever is made of it
        raise InferometerError(f"cannot read {what} {path}: {reason_of(error)}; mend the file.") from error
