"""Reading a prompt and writing after it, step by step, so that each step can be timed and weighed by itself.

Tokens are the likeliest ones and their number is fixed: an end that the model would set is written over, so that every
run does the same work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from inferometer.blocks import decoder_blocks
from inferometer.device import Device
from inferometer.manifest import Manifest
from inferometer.models import load_model
from inferometer.timing import Phase

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


@torch.inference_mode()
def _next_token(model: PreTrainedModel, tokens: Tensor, cache: Cache | None) -> Tensor:
    """The likeliest token [batch, 1] after `tokens` [batch, tokens] and whatever the cache holds; the cache grows."""
    output: Any = model(tokens, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1)
    chosen: Tensor = output.logits[:, -1:].argmax(dim=-1)
    return chosen


def read(model: PreTrainedModel, prompt: Tensor) -> tuple[Tensor, Cache]:
    """The first token [batch, 1] after a prompt [batch, tokens], and the cache of the prompt."""
    cache = DynamicCache(config=model.config)
    return _next_token(model, prompt, cache), cache


def write(model: PreTrainedModel, token: Tensor, cache: Cache, count: int) -> Tensor:
    """The `count` tokens [batch, count] after `token` [batch, 1], which the cache, that grows, has not."""
    written = []
    for _ in range(count):
        token = _next_token(model, token, cache)
        written.append(token)
    return torch.cat(written, dim=1)


def write_without_cache(model: PreTrainedModel, prompt: Tensor, count: int) -> Tensor:
    """The `count` tokens [batch, count] after a prompt, all of which is read again for each."""
    tokens = prompt
    for _ in range(count):
        tokens = torch.cat([tokens, _next_token(model, tokens, None)], dim=1)
    return tokens[:, prompt.shape[1] :]


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
