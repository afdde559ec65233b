"""Configurations that nobody would write: whatever a file holds, the answer is a study or one short sentence."""

import copy
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferometer.config import Config, ConfigError, validate

ROOT = Path(__file__).parents[2]
DEFAULT: Config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
CASES = 1000
LONGEST_SENTENCE = 1500  # many names of one's own, or all keys that there are


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values below one, its own left out."""
    parts: dict[Any, Any] = {}
    if isinstance(value, dict):
        parts = value
    elif isinstance(value, list):
        parts = dict(enumerate(value))
    return [found for key, part in parts.items() for found in ((*path, key), *places(part, (*path, key)))]


PLACES = places(DEFAULT)


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = wrap(value)
    return value


def holding_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def doubled(levels: int) -> list[Any]:
    """What takes a few lines with aliases, and two to the power of `levels` values without."""
    value: list[Any] = ["lol"]
    for _ in range(levels):
        value = [value, value]
    return value


ODD_TEXT = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "",
            ".",
            "..",
            "../../etc/passwd",
            "/etc/passwd",
            "/dev/zero",
            "/proc/self/mem",
            "a\0b",
            "a\nb",
            "{model}",
            "{}",
        ]
    ),
    st.sampled_from(["all", "fp", "tiny", "{{ 7*7 }}", "$(touch x)", "\u202e", "\ud800", "w8а8", "A" * 5000, "~", "°"]),
)
ODD_KEYS = st.one_of(ODD_TEXT, st.integers(), st.booleans(), st.none(), st.floats(), st.dates(), st.binary(max_size=3))
ODD_LEAVES = st.one_of(
    ODD_TEXT,
    st.integers(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 16**6000]),
    st.floats(),
    st.booleans(),
    st.none(),
    st.dates(),
    st.sampled_from([datetime.datetime(2020, 1, 1), b"bytes", {"a set"}, ("a", "tuple")]),
)
ODD_VALUES = st.one_of(
    ODD_LEAVES,
    st.lists(ODD_LEAVES, max_size=4),
    st.dictionaries(ODD_KEYS, ODD_LEAVES, max_size=4),
    st.integers(min_value=2, max_value=3000).map(lambda levels: nested(levels, lambda value: [value])),
    st.integers(min_value=2, max_value=3000).map(lambda levels: nested(levels, lambda value: {"a": value})),
    st.integers(min_value=2, max_value=60).map(doubled),
    st.builds(holding_itself),
)


@st.composite
def mutated(draw: st.DrawFn) -> Config:
    """The default configuration with up to four changes."""
    config = copy.deepcopy(DEFAULT)
    for _ in range(draw(st.integers(min_value=1, max_value=4))):
        *parents, last = draw(st.sampled_from(PLACES))
        holder: Any = config
        try:
            for parent in parents:
                holder = holder[parent]
            holder[last]
        except (LookupError, TypeError):  # an earlier change took it away
            continue
        match draw(st.sampled_from(["replace", "delete", "swap", "add", "wrap"])):
            case "replace":
                holder[last] = draw(ODD_VALUES)
            case "delete":
                del holder[last]
            case "swap":  # with what stands elsewhere in the default
                value: Any = DEFAULT
                for key in draw(st.sampled_from(PLACES)):
                    value = value[key]
                holder[last] = copy.deepcopy(value)
            case "add" if isinstance(holder, dict):
                holder[draw(ODD_KEYS)] = draw(ODD_VALUES)
            case "add" if isinstance(holder, list):
                holder.append(draw(ODD_VALUES))
            case _:
                holder[last] = draw(st.sampled_from([[holder[last]], {"a": holder[last]}]))
    return config


def assert_a_study_or_a_sentence(config: Any) -> None:
    try:
        validate(config, ROOT, ROOT)
    except ConfigError as error:
        said = str(error)
        assert said.isprintable(), said
        assert "configuration" in said
        assert said.endswith("."), said
        assert len(said) <= LONGEST_SENTENCE


@settings(max_examples=CASES, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_a_mutated_configuration_is_a_study_or_is_refused_in_one_sentence(config: Config) -> None:
    assert_a_study_or_a_sentence(config)


@pytest.mark.parametrize("levels", [31, 32, 900])
def test_what_is_nested_deep_where_the_schema_is_open_is_refused(levels: int) -> None:
    config = copy.deepcopy(DEFAULT)
    config["models"]["llama-3-8b-2-layers"]["config"]["rope_scaling"] = nested(levels, lambda value: {"a": value})
    with pytest.raises(ConfigError, match="nested more than 32 levels deep"):
        validate(config, ROOT, ROOT)
