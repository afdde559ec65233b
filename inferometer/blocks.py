"""A model's decoder as a stack of blocks that can be run one at a time, whatever its class.

The model's own forward pass calls the blocks, so masks, positions and caches are what they always are: blocks before
the one of interest hand on a stored output, and the pass ends as soon as the one of interest is done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.layers import decoder_layer_index
from inferometer.models import quantizable_layers

BlockOutput = Any  # a tensor, or a tuple that starts with it


def decoder_blocks(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The decoder blocks by module name, in order: what holds linear layers and is a numbered member of the stack."""
    names: dict[str, nn.Module] = {}
    for layer in quantizable_layers(model):
        index = decoder_layer_index(layer)
        if index is not None:
            before, _, _ = f".{layer}.".partition(f".{index}.")
            name = f"{before}.{index}".strip(".")
            names[name] = model.get_submodule(name)
    return names


class _IsDone(Exception):
    """Ends a forward pass early."""


@contextmanager
def _forward_replaced(blocks: list[nn.Module], forward: Any) -> Iterator[None]:
    try:
        for block in blocks:
            block.forward = forward  # of this one module, not of its class
        yield
    finally:
        for block in blocks:
            del block.forward


def run_from(model: PreTrainedModel, earlier: list[nn.Module], output: BlockOutput, tokens: Tensor) -> Any:
    """The model's own output for `tokens` [rows, tokens], with the `earlier` blocks' work taken as done.

    `output` is what the last of them returned before for the same tokens.
    """
    with _forward_replaced(earlier, lambda *_, **__: output):
        return model(tokens)


def output_of(model: PreTrainedModel, module: nn.Module, tokens: Tensor) -> Any:
    """What a module of the model returns for `tokens` [rows, tokens]; nothing runs after it."""
    result: list[Any] = []

    def stop(_module: nn.Module, _arguments: Any, output: Any) -> None:
        result.append(output)
        raise _IsDone

    handle = module.register_forward_hook(stop)
    try:
        model(tokens)
    except _IsDone:
        pass
    finally:
        handle.remove()
    return result[0]


def run_block(
    model: PreTrainedModel, earlier: list[nn.Module], output: BlockOutput, block: nn.Module, tokens: Tensor
) -> BlockOutput:
    """What a block returns for `tokens` [rows, tokens], given what the last of the `earlier` ones returned."""
    with _forward_replaced(earlier, lambda *_, **__: output):
        return output_of(model, block, tokens)
