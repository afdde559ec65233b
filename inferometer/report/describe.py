"""Schemes in words: which family they belong to, and what they do to weights, activations and the model."""

from collections.abc import Mapping
from typing import Any

FORMATS = {
    "fp8_e4m3": ("FP8 E4M3", 8),
    "fp8_e5m2": ("FP8 E5M2", 8),
    "mxfp8": ("MXFP8, blocks of 32", 8),
    "mxfp4": ("MXFP4, blocks of 32", 4),
    "nvfp4": ("NVFP4, blocks of 16", 4),
    "llm_int8": ("8 bits, bitsandbytes", 8),
    "nf4": ("NF4, bitsandbytes", 4),
}
FLOAT_BITS = 16  # what a family's name calls everything that is not rounded, as the field does

Entry = Mapping[str, Any]


def _bits(part: Entry | None) -> int:
    if part is None:
        return FLOAT_BITS
    return int(part["bits"]) if "bits" in part else FORMATS[part["format"]][1]


def weight_bits(entry: Entry) -> int:
    """The bits of a scheme's weights, as the names of families count them."""
    return _bits(entry.get("weights"))


def fewest_bits(entry: Entry) -> int:
    """The bits of weights or of activations, whichever has fewer."""
    return min(weight_bits(entry), _bits(activations(entry)))


def family(entry: Entry) -> str:
    """The bits of weights and activations as the field writes them, such as W4A16."""
    return f"W{weight_bits(entry)}A{_bits(activations(entry))}"


def activations(entry: Entry) -> Entry | None:
    """How a scheme rounds activations; LLM.int8() is configured by its weights and rounds both."""
    weights = entry.get("weights", {})
    return weights if weights.get("format") == "llm_int8" else entry.get("activations")


def grid(part: Entry | None, dtype: str) -> str:
    """A grid in words: bits or format, what shares a scale, and what is not the plain case."""
    if part is None:
        return dtype
    words = [FORMATS[part["format"]][0]] if "format" in part else [f"{part['bits']} bits"]
    if "granularity" in part:
        size = f" of {part['group_size']}" if "group_size" in part else ""
        words.append(part["granularity"].replace("_", " ") + size)
    if not part.get("symmetric", True):
        words.append("asymmetric")
    if part.get("clip", "absmax") != "absmax":
        words.append(f"clipped ({part.get('percentile', part['clip'])})")
    if part.get("range") == "static":
        words.append("static")
    if "outlier_threshold" in part:
        words.append(f"outliers from {part['outlier_threshold']:g} in float")
    if part.get("rounding") == "gptq":
        words.append("GPTQ")
    return ", ".join(words)


def changes(entry: Entry) -> str:
    """What is folded into the model before it is rounded, in words."""
    words = []
    if "smoothing" in entry:
        smoothing = entry["smoothing"]
        alpha = smoothing["alpha"]
        strength = (
            f"α {alpha}"
            if not isinstance(alpha, str)
            else f"α searched {alpha.removeprefix('search_').replace('_', ' ')}"
        )
        name = "AWQ" if smoothing.get("method") == "awq" else "SmoothQuant"
        where = ", all sites" if smoothing.get("sites") == "all" else ""
        words.append(f"{name}, {strength}{where}")
    if "rotation" in entry:
        words.append("rotated")
    if "keep" in entry:
        words.append("float: " + " ".join(entry["keep"]))
    return "; ".join(words) or "–"
