"""Putting other tensors into a model for a while, and the proof that this left its float logits what they were."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

TOLERANCE = 1e-4  # of the logits in float32, relative to their norm

Change = tuple[nn.Module, str, Tensor]


@contextmanager
def folded(changes: Iterable[Change]) -> Iterator[None]:
    """Run the block with parameters (module, name, value) replaced; afterwards the very same tensors are back.

    Values are computed in float32 or wider and stored in the dtype that the parameter has. A later change may build on
    an earlier one: they are taken one after the other.
    """
    own: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for module, name, value in changes:
            parameter = module.get_parameter(name)
            own.append((module, name, parameter))
            setattr(module, name, nn.Parameter(value.to(parameter.dtype), requires_grad=False))
        yield
    finally:
        for module, name, parameter in reversed(own):  # of a tensor changed twice, the first is the model's own
            setattr(module, name, parameter)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Euclidean norm of the difference over the norm of what was expected."""
    return float((actual - expected).float().norm() / expected.float().norm())


@torch.no_grad()
def logit_error(model: PreTrainedModel, changes: Iterable[Change], tokens: Tensor, expected: Tensor) -> float:
    """Relative error of the logits on `tokens` [1, tokens] with the changes in place."""
    with folded(changes):
        return relative_error(model(tokens).logits, expected)
