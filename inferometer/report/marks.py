"""Marks that stand beside a number and say what kind of number it is: how it came about, and how far it carries."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from inferometer.manifest import Manifest
from inferometer.report.describe import activations, weight_bits

SMALL_SAMPLE = 30  # fewer windows, questions, texts or prompts than these make a small sample


@dataclass(frozen=True)
class Mark:
    """A few letters for the place beside the number, and what they mean in a sentence."""

    text: str
    meaning: str


SIMULATED = Mark(
    "simulated",
    "Values were rounded and then multiplied as floats. The accuracy is that of hardware with such numbers; nothing is "
    "said about speed.",
)
EXTRAPOLATED = Mark(
    "extrapolated", "Not measured: a fitted line or a formula, drawn out beyond what was run on this machine."
)
RANDOM_WEIGHTS = Mark("random weights", "A shape filled with noise: good for time and bytes, void for accuracy.")
LEGEND = [  # every kind of mark with its meaning, as the top of the page explains them
    SIMULATED,
    Mark("executed with …", "Computed on the stored codes themselves, by the kernel that is named."),
    Mark("CPU", "Measured on a processor; CUDA: on a GPU. Such a number holds for the device that this page names."),
    EXTRAPOLATED,
    Mark(
        "n = …",
        f"A small sample: fewer than {SMALL_SAMPLE} windows, questions, texts or prompts. Bootstrap intervals over so "
        "few are too narrow rather than too wide.",
    ),
    Mark(
        "once 4-bit",
        "The float weights had been on a grid of so few bits before, by the name of their file. That may flatter "
        "whatever rounds them to as few bits again, so float and such schemes are marked.",
    ),
    RANDOM_WEIGHTS,
]


def executed(kernels: str) -> Mark:
    """The mark of numbers that came out of real products of codes, by the names of the kernels."""
    return Mark(f"executed with {kernels}", f"The scheme's codes were stored and multiplied as such, by {kernels}.")


def device(kind: str) -> Mark:
    """The mark of a time or of memory, by the kind of device that it was taken on."""
    where = "a processor" if kind == "cpu" else f"a device of kind {kind}"
    return Mark(kind.upper(), f"Measured on {where}; other devices differ.")


def small(units: int, what: str) -> Mark | None:
    """The mark of a mean over so few units that its bootstrap interval can't be relied on; None for enough of them."""
    if units >= SMALL_SAMPLE:
        return None
    return Mark(
        f"n = {units}", f"A small sample: {units} {what}, fewer than {SMALL_SAMPLE}. Take the interval lightly."
    )


def once_bits(manifest: Manifest) -> int | None:
    """The bits of the grid that a model's weights were on before they became floats, by the name of a GGUF file.

    llama.cpp names its formats after their bits: Q4_1, IQ3_XS, TQ2_0; F16 and BF16 are no grid.
    """
    found = re.search(r"[._-](?:I|T)?Q(\d)(?:_\w+)?\.gguf\b", manifest.origin, flags=re.IGNORECASE)
    return int(found[1]) if found else None


def once(bits: int) -> Mark:
    """The mark of weights that were on a grid of so many bits before."""
    return Mark(
        f"once {bits}-bit",
        f"These weights had been on a grid of {bits} bits before. Rounding them to as few bits again may look better "
        "than it would on others.",
    )


def _of_scheme(entry: Mapping[str, Any], kernels: str | None, grid_bits: int | None) -> list[Mark]:
    marks = []
    engine = entry.get("engine", "simulated")
    if "weights" in entry or activations(entry) is not None:
        marks.append(SIMULATED if engine == "simulated" else executed(kernels or engine))
    if grid_bits is not None and ("weights" not in entry or weight_bits(entry) <= grid_bits):
        marks.append(once(grid_bits))
    return marks


def of_schemes(
    manifests: Iterable[Manifest], entries: Mapping[str, Any], schemes: pd.DataFrame
) -> dict[tuple[str, str], list[Mark]]:
    """What holds for all numbers of a model under a scheme, by the names of both.

    `entries` are the configuration's schemes, `schemes` is a SCHEMES table, which knows the kernels that ran and which
    schemes did not run, of which there are no numbers to mark.
    """
    rows: dict[tuple[str, str], Any] = {(str(row.model), str(row.scheme)): row for row in schemes.itertuples()}
    found = {}
    for manifest in manifests:
        for name, entry in entries.items():
            row = rows.get((manifest.name, name))
            kernels = row.kernels if row is not None and isinstance(row.kernels, str) else None
            marks = _of_scheme(entry, kernels, once_bits(manifest))
            if row is not None and isinstance(row.skipped, str):
                marks = []
            found[manifest.name, name] = [RANDOM_WEIGHTS] if manifest.random_weights else marks
    return found
