"""A scheme says what is rounded and how. It is data: one entry of the configuration, read into typed parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from inferometer.errors import InferometerError
from inferometer.quantization.floats import FloatGrid
from inferometer.quantization.formats import BLOCKS
from inferometer.quantization.grids import Grid, IntegerGrid

Engine = Literal["simulated", "integer", "bitsandbytes"]
Rounding = Literal["nearest", "gptq"]
BitsandbytesFormat = Literal["llm_int8", "nf4"]


@dataclass(frozen=True)
class Weights:
    """How weights are rounded: onto which grid, and whether each to the nearest code or with compensation (GPTQ)."""

    grid: Grid
    rounding: Rounding


@dataclass(frozen=True)
class Activations:
    """How the inputs of linear layers are rounded: scales taken as they come or once on calibration text (`static`)."""

    grid: Grid
    static: bool
    outlier_threshold: float | None


@dataclass(frozen=True)
class Scheme:
    """How a model's linear layers are rounded; None leaves weights or their inputs in float.

    The output head and everything that is not a linear layer stay in float, as in the SmoothQuant reference, and so do
    the modules whose names match a pattern of `keep`. What is folded in before rounding (smoothing, rotation) comes
    from tables of its own; `rotation_seed` says that the model is rotated.
    """

    name: str
    weights: Weights | None
    activations: Activations | None
    rotation_seed: int | None
    keep: tuple[str, ...]
    engine: Engine
    bitsandbytes_format: BitsandbytesFormat | None

    @staticmethod
    def of(name: str, entry: Mapping[str, Any]) -> "Scheme":
        """The scheme that a validated configuration entry describes."""
        engine = entry.get("engine", "simulated")
        weights, activations = entry.get("weights"), entry.get("activations")
        library = weights["format"] if weights and engine == "bitsandbytes" else None
        return Scheme(
            name=name,
            weights=Weights(grid_of(weights), weights.get("rounding", "nearest")) if weights and not library else None,
            activations=Activations(
                grid_of(activations), activations.get("range") == "static", activations.get("outlier_threshold")
            )
            if activations
            else None,
            rotation_seed=entry["rotation"]["seed"] if "rotation" in entry else None,
            keep=tuple(entry.get("keep", ())),
            engine=engine,
            bitsandbytes_format=library,
        )

    @property
    def quantizes(self) -> bool:
        """Whether any layer computes on other numbers than floats."""
        return bool(self.weights or self.activations or self.bitsandbytes_format)

    @property
    def calibrates(self) -> bool:
        """Whether rounding needs to see calibration text."""
        compensates = self.weights is not None and self.weights.rounding == "gptq"
        return compensates or (self.activations is not None and self.activations.static)

    def rounds(self, names: list[str]) -> list[str]:
        """Which of a model's quantizable layers the scheme rounds.

        Raises InferometerError when a pattern of `keep` matches none of them.
        """
        for pattern in self.keep:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise InferometerError(
                    f"configuration key `schemes.{self.name}.keep` has the pattern {pattern!r}, which matches no "
                    f"linear layer of the model; its layers have names such as {names[0]}."
                )
        return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in self.keep)]

    def check_widths(self, widths: Mapping[str, int]) -> None:
        """Raise InferometerError, naming the layer, when groups don't divide a width that is to be rounded."""
        for part in (self.weights, self.activations):
            size = part.grid.group_size if part else None
            for name, width in widths.items():
                if size is not None and width % size:
                    raise InferometerError(
                        f"layer {name} reads {width} channels, which groups of {size} do not divide; choose another "
                        f"group size or format for the scheme {self.name}, or name it in `schemes.{self.name}.keep`."
                    )


def grid_of(entry: Mapping[str, Any]) -> Grid:
    """The grid that the `weights` or `activations` of a configuration entry describe."""
    fields = ("granularity", "group_size", "bits", "symmetric", "clip", "percentile", "format")
    given = {name: entry[name] for name in fields if name in entry}
    if "format" not in given:
        return IntegerGrid(**given)
    if given["format"] in BLOCKS:
        return FloatGrid("per_group", BLOCKS[given["format"]], given["format"])
    return FloatGrid(**given)
