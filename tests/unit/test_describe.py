"""Schemes in words: the family that the field would name, the grid, and what is folded in before."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from inferometer.report.describe import FORMATS, activations, changes, family, grid

ROOT = Path(__file__).parents[2]
DEFAULT: dict[str, Any] = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))["schemes"]
SCHEMA: dict[str, Any] = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, "W16A16"),
        ({"weights": {"bits": 3}}, "W3A16"),
        ({"activations": {"bits": 8}}, "W16A8"),
        ({"weights": {"bits": 4}, "activations": {"bits": 8}}, "W4A8"),
        ({"weights": {"format": "nvfp4"}, "activations": {"format": "mxfp8"}}, "W4A8"),
        ({"weights": {"format": "fp8_e5m2"}}, "W8A16"),
        ({"weights": {"format": "nf4"}, "engine": "bitsandbytes"}, "W4A16"),
        ({"weights": {"format": "llm_int8"}, "engine": "bitsandbytes"}, "W8A8"),
    ],
)
def test_a_family_is_named_by_the_bits_of_weights_and_activations(entry: dict[str, Any], expected: str) -> None:
    assert family(entry) == expected


def test_llm_int8_rounds_activations_too() -> None:
    assert grid(activations({"weights": {"format": "llm_int8"}, "engine": "bitsandbytes"}), "float32") != "float32"
    assert grid(activations({"weights": {"format": "nf4"}, "engine": "bitsandbytes"}), "float32") == "float32"
    assert activations({"weights": {"bits": 8}, "activations": {"bits": 4}}) == {"bits": 4}


def test_names_of_the_default_schemes_begin_with_their_family() -> None:
    for name, entry in DEFAULT.items():
        if name.startswith("w"):
            assert name.upper().startswith(family(entry)), name


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (None, "bfloat16"),
        ({"bits": 8, "granularity": "per_token"}, "8 bits, per token"),
        ({"bits": 4, "granularity": "per_group", "group_size": 64}, "4 bits, per group of 64"),
        (
            {"bits": 4, "granularity": "per_channel", "symmetric": False, "clip": "mse", "rounding": "gptq"},
            "4 bits, per channel, asymmetric, clipped (mse), GPTQ",
        ),
        (
            {"bits": 8, "granularity": "per_tensor", "clip": "percentile", "percentile": 99.9, "range": "static"},
            "8 bits, per tensor, clipped (99.9), static",
        ),
        (
            {"bits": 8, "granularity": "per_token", "outlier_threshold": 6.0},
            "8 bits, per token, outliers from 6 in float",
        ),
        ({"format": "fp8_e4m3", "granularity": "per_channel"}, "FP8 E4M3, per channel"),
        ({"format": "nvfp4"}, "NVFP4, blocks of 16"),
        (
            {"bits": 8, "granularity": "per_token", "symmetric": True, "clip": "absmax", "range": "dynamic"},
            "8 bits, per token",
        ),
        ({"bits": 8, "granularity": "per_channel", "rounding": "nearest"}, "8 bits, per channel"),
    ],
)
def test_a_grid_is_told_by_what_is_not_the_plain_case(part: dict[str, Any] | None, expected: str) -> None:
    assert grid(part, "bfloat16") == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, "–"),
        ({"weights": {"bits": 8}}, "–"),
        ({"smoothing": {"alpha": 0.5}}, "SmoothQuant, α 0.5"),
        ({"smoothing": {"alpha": 0, "sites": "norms"}}, "SmoothQuant, α 0"),
        ({"smoothing": {"alpha": "search_per_model"}}, "SmoothQuant, α searched per model"),
        (
            {"smoothing": {"method": "awq", "alpha": "search_per_site", "sites": "all"}},
            "AWQ, α searched per site, all sites",
        ),
        ({"rotation": {"seed": 3}}, "rotated"),
        (
            {"rotation": {"seed": 3}, "keep": ["*.down_proj", "model.layers.0.*"]},
            "rotated; float: *.down_proj model.layers.0.*",
        ),
    ],
)
def test_what_is_done_to_the_model_before_is_told_in_order(entry: dict[str, Any], expected: str) -> None:
    assert changes(entry) == expected


def test_every_format_of_the_schema_has_words() -> None:
    scheme = SCHEMA["$defs"]["scheme"]["properties"]
    known = {name for part in ("weights", "activations") for name in scheme[part]["properties"]["format"]["enum"]}
    assert known == set(FORMATS)


def test_every_default_scheme_can_be_told() -> None:
    for entry in DEFAULT.values():
        words = [grid(entry.get(part), "float32") for part in ("weights", "activations")] + [changes(entry)]
        assert all(word and "None" not in word and "_" not in word for word in words)
