"""Folding a rotation into a model's weights, path by path."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from inferometer.folding import Change
from inferometer.models import Linear, weight_matrix
from inferometer.rotation.hadamard import Rotation
from inferometer.smoothing.producers import oriented

Role = Literal["embedding", "reader", "norm", "writer", "value", "online"]


@dataclass(frozen=True)
class Path:
    """One thing that a rotation does to a model.

    `embedding` and `writer` modules write rotated rows to the residual stream; a `reader` takes up the gain of its
    norm, the `partner`, and reads rotated rows; a `norm` is left with gains of one (its weight plus `offset`). The
    `rows` outputs from `first_row` on of a `value` layer are rotated within heads of `head_dim`, and its partner reads
    them so. An `online` layer reads inputs that are rotated as they come.
    """

    role: Role
    module: str
    partner: str | None = None
    offset: float | None = None
    first_row: int | None = None
    rows: int | None = None
    head_dim: int | None = None


def _heads_rotated(matrix: Tensor, head_dim: int, seed: int) -> Tensor:
    """A matrix [rows, width] with the same rotation applied to every head along the width."""
    rotation = Rotation.random(head_dim, seed).to(matrix)
    return rotation(matrix.unflatten(-1, (-1, head_dim))).flatten(-2)


def _linear(module: nn.Module) -> Linear:
    assert isinstance(module, nn.Linear | Conv1D)
    return module


def _exact(layer: Linear) -> Tensor:
    """A layer's weight [outputs, inputs] in float64, so that folding costs no accuracy."""
    return weight_matrix(layer).double()


def changes_of_path(model: PreTrainedModel, path: Path, seed: int) -> Iterator[Change]:
    """The parameters that one path changes."""
    module = model.get_submodule(path.module)
    match path.role:
        case "embedding":
            table = module.get_parameter("weight").double()
            yield module, "weight", Rotation.random(table.shape[1], seed).to(table)(table)
        case "reader":
            assert path.partner is not None
            assert path.offset is not None
            gain = model.get_submodule(path.partner).get_parameter("weight").double() + path.offset
            layer = _linear(module)
            rotation = Rotation.random(gain.numel(), seed).to(gain)
            yield layer, "weight", oriented(layer, rotation(_exact(layer) * gain))
        case "norm":
            assert path.offset is not None
            yield module, "weight", torch.full_like(module.get_parameter("weight"), 1 - path.offset)
        case "writer":
            layer = _linear(module)
            weight = _exact(layer)
            rotation = Rotation.random(weight.shape[0], seed).to(weight)
            yield layer, "weight", oriented(layer, rotation(weight.T).T)
            if layer.bias is not None:
                yield layer, "bias", rotation(layer.bias.double())
        case "value":
            assert path.partner is not None
            assert path.first_row is not None
            assert path.rows is not None
            assert path.head_dim is not None
            layer, reader = _linear(module), _linear(model.get_submodule(path.partner))
            span = slice(path.first_row, path.first_row + path.rows)
            weight = _exact(layer).clone()
            weight[span] = _heads_rotated(weight[span].T, path.head_dim, seed).T
            yield layer, "weight", oriented(layer, weight)
            if layer.bias is not None:
                bias = layer.bias.double().clone()
                bias[span] = _heads_rotated(bias[None, span], path.head_dim, seed)[0]
                yield layer, "bias", bias
            yield reader, "weight", oriented(reader, _heads_rotated(_exact(reader), path.head_dim, seed))
        case "online":
            layer = _linear(module)
            weight = _exact(layer)
            yield layer, "weight", oriented(layer, Rotation.random(weight.shape[1], seed).to(weight)(weight))


def rotation_changes(model: PreTrainedModel, paths: Iterable[Path], seed: int) -> Iterator[Change]:
    """The parameters that all paths change. A tied output head gets a weight of its own: its norm's gain goes into it.

    The caller must rotate what `online` layers read: see `online_rotations`.
    """
    for path in paths:
        yield from changes_of_path(model, path, seed)


def online_rotations(model: PreTrainedModel, paths: Iterable[Path], seed: int) -> dict[str, Rotation]:
    """The rotation of the inputs of every `online` layer, by layer name, in the model's dtype and on its device."""
    like = next(model.parameters())
    return {
        path.module: Rotation.random(weight_matrix(_linear(model.get_submodule(path.module))).shape[1], seed).to(like)
        for path in paths
        if path.role == "online"
    }
