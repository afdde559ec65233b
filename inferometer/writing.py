"""Reading a prompt and writing after it, step by step, with the likeliest token each time.

The number of tokens is fixed: an end that the model would set is written over, so that every run does the same work.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from inferometer.errors import InferometerError
from inferometer.limits import limited
from inferometer.sources.reasons import reason_of

TEMPLATE_SECONDS = 30  # that a chat template may run; usual ones take a thousandth of one
TEMPLATE_BYTES = 2**30


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> Tensor:
    """Token ids [1, tokens] of a prompt, in the model's chat format where it has one.

    Raises InferometerError where the format is a program that fails, or takes too much time or memory.
    """
    if tokenizer.chat_template:
        message = [{"role": "user", "content": text}]
        try:
            with limited(TEMPLATE_SECONDS, TEMPLATE_BYTES):
                chat: Any = tokenizer.apply_chat_template(
                    message, add_generation_prompt=True, return_tensors="pt", return_dict=True
                )
        except Exception as error:  # a template is a program of the model's maker
            raise InferometerError(
                f"the chat template of the model can't be used ({reason_of(error)}); mend it, or take it out of the "
                "model's folder."
            ) from error
        tokens: Tensor = chat["input_ids"]
        return tokens
    plain: Any = tokenizer(text, return_tensors="pt")
    found: Tensor = plain["input_ids"]
    return found


def decoded(tokenizer: PreTrainedTokenizerBase, tokens: Tensor) -> str:
    """The text of written tokens [tokens] up to the first that ends it."""
    ids = tokens.tolist()
    end = tokenizer.eos_token_id
    text: Any = tokenizer.decode(ids[: ids.index(end)] if end in ids else ids, skip_special_tokens=True)
    return str(text).strip()


@torch.inference_mode()
def next_logits(model: PreTrainedModel, tokens: Tensor, cache: Cache | None) -> Tensor:
    """Logits [batch, vocabulary] after `tokens` [batch, tokens] and whatever the cache holds; the cache grows."""
    output: Any = model(tokens, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1)
    logits: Tensor = output.logits[:, -1]
    return logits


def next_token(model: PreTrainedModel, tokens: Tensor, cache: Cache | None) -> Tensor:
    """The likeliest token [batch, 1] after `tokens` [batch, tokens] and whatever the cache holds; the cache grows."""
    return next_logits(model, tokens, cache).argmax(dim=-1, keepdim=True)


def read(model: PreTrainedModel, prompt: Tensor) -> tuple[Tensor, Cache]:
    """The first token [batch, 1] after a prompt [batch, tokens], and the cache of the prompt."""
    cache = DynamicCache(config=model.config)
    return next_token(model, prompt, cache), cache


def write(model: PreTrainedModel, token: Tensor, cache: Cache, count: int) -> Tensor:
    """The `count` tokens [batch, count] after `token` [batch, 1], which the cache, that grows, has not."""
    written = []
    for _ in range(count):
        token = next_token(model, token, cache)
        written.append(token)
    return torch.cat(written, dim=1)


def write_without_cache(model: PreTrainedModel, prompt: Tensor, count: int) -> Tensor:
    """The `count` tokens [batch, count] after a prompt, all of which is read again for each."""
    tokens = prompt
    for _ in range(count):
        tokens = torch.cat([tokens, next_token(model, tokens, None)], dim=1)
    return tokens[:, prompt.shape[1] :]
