"""A text written with a cache under a policy, and the bits that each of its tokens got."""

import math

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from inferometer.features import entropy
from inferometer.kv_cache.policies import Policy
from inferometer.kv_cache.session import Session, features_of, read_context


def trace(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, policy: Policy, prompt: Tensor, new_tokens: int
) -> pd.DataFrame:
    """The CACHE_TRACE table of the likeliest tokens after a prompt [1, tokens], written one by one.

    Only of policies that choose bits.
    """
    context = read_context(model, prompt, features_of([policy]) | {"entropy"})
    session = Session(model, policy)
    session.fill(context)
    before, tokens, unsure = context.logits, prompt[0].tolist(), list(context.known["entropy"])
    for _ in range(new_tokens):
        token = before.argmax()
        tokens.append(int(token))
        unsure.append(float(entropy(before)))
        before = session.read(model, token[None, None], before)[-1]
    bits = session.bits
    count = len(bits)
    pieces: list[str] = [str(tokenizer.decode([token])) for token in tokens]
    return pd.DataFrame(
        {
            "position": range(count),
            "token": tokens,
            "text": pieces,
            "written": [position >= prompt.shape[1] for position in range(count)],
            "entropy": [value if math.isfinite(value) else None for value in unsure],
            "bits": bits,
            "running_bits": torch.tensor(bits).double().cumsum(0).div(torch.arange(1, count + 1)).tolist(),
        }
    )
