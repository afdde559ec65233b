"""Rotating what layers read as the model runs, where no layer before can take the rotation up."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.rotation.hadamard import Rotation


class RotatedInput(nn.Module):
    """A layer whose inputs [..., inputs] are rotated as they come."""

    def __init__(self, rotation: Rotation, layer: nn.Module) -> None:
        super().__init__()
        self.rotation = rotation
        self.layer = layer

    def forward(self, values: Tensor) -> Tensor:
        """The layer's output on rotated inputs."""
        output: Tensor = self.layer(self.rotation(values))
        return output


@contextmanager
def inputs_rotated(model: PreTrainedModel, rotations: Mapping[str, Rotation]) -> Iterator[None]:
    """Run the block with the inputs of the named layers rotated as they come; afterwards the very same layers are back.

    The rotations must be in the dtype and on the device of the model.
    """
    layers = {name: model.get_submodule(name) for name in rotations}
    try:
        for name, layer in layers.items():
            model.set_submodule(name, RotatedInput(rotations[name], layer))
        yield
    finally:
        for name, layer in layers.items():
            model.set_submodule(name, layer)
