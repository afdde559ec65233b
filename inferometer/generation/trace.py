"""Letting a model write after a few prompts, and what each token was to it, by one more pass over all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from inferometer.device import Device
from inferometer.features import entropy, rarity, received_attention, saliency
from inferometer.generation.loops import find_loop, repeated
from inferometer.writing import decoded, encoded, read, write


@dataclass(frozen=True)
class Trace:
    """What was written and what its tokens were: the tables WRITTEN and FEATURES."""

    written: pd.DataFrame
    features: pd.DataFrame


def own_tokens(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> range:
    """The positions in an encoded prompt of its own text: what differs from the same chat format without a text."""
    empty = encoded(tokenizer, "")[0].int().tolist()
    before = _common(prompt, empty)
    after = min(_common(prompt[::-1], empty[::-1]), len(empty) - before)
    return range(before, len(prompt) - after)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many items two sequences have in common from the start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def _features(model: PreTrainedModel, tokens: Tensor, prompt_tokens: int) -> dict[str, Any]:
    """The columns of FEATURES that a model tells of tokens [1, tokens], each [tokens], or why there is no attention."""
    whole = saliency(model, tokens)
    logits, unknown = whole.logits[:-1], tokens.new_full((1,), torch.nan, dtype=torch.float32)
    first = saliency(model, tokens[:, :prompt_tokens], last_only=True).norm
    attention = received_attention(model, tokens)
    columns = {
        "entropy": torch.cat([unknown, entropy(logits)]),
        "rarity": torch.cat([unknown, rarity(logits, tokens[0, 1:])]),
        "saliency_norm": whole.norm,
        "gradient_input": whole.gradient_input,
        "first_saliency_norm": torch.cat([first, unknown.expand(tokens.shape[1] - prompt_tokens)]),
        "received_attention": unknown.expand(tokens.shape[1]) if isinstance(attention, str) else attention,
    }
    return {
        **{name: values.double().cpu().numpy() for name, values in columns.items()},
        "no_attention": attention if isinstance(attention, str) else None,
    }


def trace(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Mapping[str, Tensor],
    new_tokens: int,
    device: Device,
) -> Trace:
    """Write `new_tokens` tokens, two or more, after each of the encoded prompts [1, tokens], and look at every token.

    The features come from one pass over the prompt and what was written; the logits before a token are those that it
    was drawn from.
    """
    written: list[dict[str, object]] = []
    features: list[pd.DataFrame] = []
    for name, prompt in prompts.items():
        start = prompt.shape[1]
        token, cache = read(model, prompt.to(model.device))
        tokens = torch.cat([prompt.to(model.device), token, write(model, token, cache, new_tokens - 1)], dim=1)
        del cache
        ids: list[int] = tokens[0].tolist()
        new, own = ids[start:], own_tokens(tokenizer, ids[:start])
        loop, columns = find_loop(new), _features(model, tokens, start)
        written.append(
            {
                "prompt": name,
                "prompt_tokens": start,
                "new_tokens": new_tokens,
                "text": decoded(tokenizer, tokens[0, start:]),
                "ended_after": new.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in new else None,
                "loop_after": loop.start if loop else None,
                "loop_period": loop.period if loop else None,
                "no_attention": columns.pop("no_attention"),
            }
        )
        places = pd.RangeIndex(len(ids))
        features.append(
            pd.DataFrame(
                {
                    "prompt": name,
                    "position": places,
                    "token": ids,
                    "text": [tokenizer.decode([one], clean_up_tokenization_spaces=False) for one in ids],
                    "generated": places >= start,
                    "own": places.isin(own),
                    **columns,
                    "repeats": [False] * start + repeated(new),
                }
            )
        )
    numbers = dict.fromkeys(("ended_after", "loop_after", "loop_period"), "Int64")
    table = pd.DataFrame(written).astype(numbers)
    machine = {"device": device.kind, "dtype": str(model.dtype).removeprefix("torch.")}
    return Trace(table.assign(**machine), pd.concat(features, ignore_index=True))
