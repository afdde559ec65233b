"""Reading and writing in parts that can be timed and weighed by themselves, by a model whole or cut short."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.blocks import decoder_blocks
from inferometer.device import Device
from inferometer.manifest import Manifest
from inferometer.models import load_model
from inferometer.timing import Phase
from inferometer.writing import read, write

SEED = 0


def load_to_profile(manifest: Manifest, checkpoint: Path, device: Device, dtype: str) -> PreTrainedModel:
    """The model in a dtype, whose output head copies the states that it is given.

    The last ones are a slice of all, with its strides, for which torch copies the head's weight in every pass instead:
    seconds for a gibibyte. `contiguous` leaves a slice of one sequence as it is.
    """
    model = load_model(manifest, checkpoint, device, dtype)
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(lambda _, states: states[0].clone(memory_format=torch.contiguous_format))
    return model


def phases(model: PreTrainedModel, prompt: Tensor, new_tokens: int, written: list[Tensor]) -> Iterator[Phase]:
    """Write so many tokens, two or more, after a prompt: `prefill` gives the first, `decode` each of the others.

    They are added to `written`: [batch, 1] and [batch, new_tokens - 1].
    """
    token, cache = read(model, prompt)
    written.append(token)
    yield "prefill", 1
    written.append(write(model, token, cache, new_tokens - 1))
    yield "decode", new_tokens - 1


def random_prompt(model: PreTrainedModel, batch: int, tokens: int) -> Tensor:
    """A seeded prompt [batch, tokens] of any tokens: what they say changes neither time nor memory."""
    generator = torch.Generator().manual_seed(SEED)
    vocabulary = model.config.get_text_config().vocab_size
    return torch.randint(vocabulary, (batch, tokens), generator=generator).to(model.device)


@contextmanager
def first_layers(model: PreTrainedModel, layers: int) -> Iterator[None]:
    """Run the block with only the first decoder layers; the same modules are back in place afterwards."""
    stack_name = next(iter(decoder_blocks(model))).rpartition(".")[0]
    stack, config = model.get_submodule(stack_name), model.config.get_text_config()
    assert isinstance(stack, nn.ModuleList)
    before = config.num_hidden_layers
    try:
        model.set_submodule(stack_name, stack[:layers])
        config.num_hidden_layers = layers
        yield
    finally:
        model.set_submodule(stack_name, stack)
        config.num_hidden_layers = before
