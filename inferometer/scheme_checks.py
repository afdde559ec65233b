"""What makes no sense in a scheme, said before anything is downloaded; needs no torch.

The schema knows which keys and values there are; these checks know which of them go together.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from inferometer.quantization.formats import BLOCKS, LIBRARY_FORMATS

INTEGER_ENGINE_BITS = (4, 8)

Entry = Mapping[str, Any]


def calibrates(entry: Entry) -> bool:
    """Whether rounding by a scheme's entry needs to see calibration text."""
    compensates: bool = entry.get("weights", {}).get("rounding") == "gptq"
    is_static: bool = entry.get("activations", {}).get("range") == "static"
    return compensates or is_static


def faults(entry: Entry) -> Iterator[tuple[str, str]]:
    """What is wrong with a scheme's entry that fits the schema: the key below the scheme, and why."""
    for part in ("weights", "activations"):
        if part in entry:
            yield from ((f"{part}.{key}", reason) for key, reason in _grid_faults(entry[part]))
    yield from _activation_faults(entry)
    yield from _smoothing_faults(entry)
    yield from _engine_faults(entry)
    if "keep" in entry and "weights" not in entry and "activations" not in entry:
        yield "keep", "keeps modules in float, but the scheme rounds none; add `weights` or `activations`"


def _grid_faults(part: Entry) -> Iterator[tuple[str, str]]:
    if ("bits" in part) == ("format" in part):
        yield "bits", "needs either `bits` for an integer grid or `format` for another, and not both"
        return
    given = part.get("format")
    if given in (*BLOCKS, *LIBRARY_FORMATS):
        for key in ("granularity", "group_size"):
            if key in part:
                yield key, f"can't be set for the format {given}, which brings its own; leave it out"
    elif "granularity" not in part:
        yield "granularity", "is missing; say which values share a scale, such as per_channel or per_token"
    if given is not None:
        for key in ("symmetric", "clip", "percentile"):
            if key in part:
                yield key, f"is for integer grids; leave it out for the format {given}"
    if (part.get("granularity") == "per_group") != ("group_size" in part):
        yield "group_size", "goes with the granularity per_group, and per_group needs it"
    if (part.get("clip") == "percentile") != ("percentile" in part):
        yield "percentile", "goes with `clip: percentile`, which needs it"


def _activation_faults(entry: Entry) -> Iterator[tuple[str, str]]:
    part = entry.get("activations", {})
    if part.get("range") == "static":
        if part.get("granularity") != "per_tensor" or "bits" not in part:
            yield (
                "activations.range",
                "can be static for integer grids per_tensor only: rows and groups are new each time",
            )
        if "outlier_threshold" in part:
            yield (
                "activations.outlier_threshold",
                "finds outliers as they come; it can't be combined with static ranges",
            )
    if part.get("format") in LIBRARY_FORMATS:
        yield "activations.format", f"is {part['format']}, which is for the weights of the bitsandbytes engine"
    if "outlier_threshold" in part and "weights" not in entry:
        yield "activations.outlier_threshold", "is for schemes that also round weights"


def _smoothing_faults(entry: Entry) -> Iterator[tuple[str, str]]:
    smoothing = entry.get("smoothing")
    if smoothing is None:
        return
    if "rotation" in entry:
        yield "smoothing", "is undone by `rotation`, which takes the norms' gains up into the weights; drop one of them"
    if smoothing.get("method") == "awq":
        if "weights" not in entry or "activations" in entry:
            yield "smoothing.method", "is awq, which is for schemes that round weights only"
    elif "weights" not in entry or "activations" not in entry:
        yield (
            "smoothing.alpha",
            (
                "moves outliers from activations into weights, so the scheme must round both; add what is missing, "
                "or set `method: awq` for weights alone"
            ),
        )


def _engine_faults(entry: Entry) -> Iterator[tuple[str, str]]:
    engine, weights, activations = entry.get("engine", "simulated"), entry.get("weights"), entry.get("activations")
    of_library = weights is not None and weights.get("format") in LIBRARY_FORMATS
    if of_library != (engine == "bitsandbytes"):
        yield (
            "engine",
            (f"is {engine}; the formats {' and '.join(LIBRARY_FORMATS)} and the engine bitsandbytes go together only"),
        )
        return
    if engine == "bitsandbytes":
        for key in ("activations", "smoothing", "rotation"):
            if key in entry:
                yield key, "can't be combined with the engine bitsandbytes, which rounds as the library does"
        if "rounding" in entry["weights"]:
            yield "weights.rounding", "can't be chosen for the engine bitsandbytes, which rounds as the library does"
    if engine != "integer":
        return
    if weights is None or "bits" not in weights:
        yield "weights", "must be on an integer grid for the engine integer"
        return
    for name, part in (("weights", weights), ("activations", activations)):
        if part is not None and part.get("bits") not in INTEGER_ENGINE_BITS:
            bits = part.get("bits", part.get("format"))
            yield f"{name}.bits", f"is {bits}, which the engine integer can't store; it must be 4 or 8"
    if activations is not None:
        served = "per_tensor" if activations.get("range") == "static" else "per_token"
        if activations.get("granularity") != served or "outlier_threshold" in activations:
            yield (
                "activations.granularity",
                "must be per_token, or per_tensor with a static range, and without outliers for the engine integer",
            )
        if weights.get("granularity") == "per_group" or not weights.get("symmetric", True):
            yield (
                "weights.granularity",
                (
                    "must be per_channel or per_tensor and symmetric for the engine integer with activations: "
                    "one scale a row is all that an integer product allows"
                ),
            )
