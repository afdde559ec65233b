"""A scheme says what is rounded and how; a model takes one on for a while and comes back unchanged."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from inferometer.models import quantizable_layers
from inferometer.quantization import ActivationRounder, Grid, SimulatedLinear


@dataclass(frozen=True)
class Scheme:
    """How a model's linear layers are rounded: a grid for weights and one for their inputs; None leaves them float.

    The output head and everything that is not a linear layer stay in float, as in the SmoothQuant reference.
    """

    name: str
    weights: Grid | None
    activations: Grid | None

    @staticmethod
    def of(name: str, entry: Mapping[str, Any]) -> "Scheme":
        """The scheme that a validated configuration entry describes."""
        return Scheme(name, *(Grid(**entry[part]) if part in entry else None for part in ("weights", "activations")))


@contextmanager
def rounded(model: PreTrainedModel, scheme: Scheme) -> Iterator[None]:
    """Run the block with the model's decoder rounded by a scheme.

    Each linear layer is replaced by one with a rounded copy of its weight; afterwards the very same modules and
    tensors are back in place, so one loaded model serves many schemes.
    """
    replaced = {}
    if scheme.weights or scheme.activations:
        rounder = ActivationRounder(scheme.activations) if scheme.activations else None
        replaced = quantizable_layers(model)
    try:
        for name, layer in replaced.items():
            model.set_submodule(name, SimulatedLinear(layer, scheme.weights, rounder))
        yield
    finally:
        for name, layer in replaced.items():
            model.set_submodule(name, layer)
