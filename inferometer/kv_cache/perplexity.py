"""Perplexity with the cache in the loop: every step of a text is predicted from what is stored of all before it."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.evaluation.divergence import kl_divergence
from inferometer.kv_cache.policies import Policy
from inferometer.kv_cache.session import Session, features_of, follow, read_context


def score_window(
    model: PreTrainedModel,
    policies: Sequence[Policy],
    window: Tensor,
    context_tokens: int,
    step_tokens: int,
) -> Mapping[str, tuple[pd.DataFrame, dict[str, float | None]]]:
    """For each policy the columns of CACHE_PERPLEXITY from `position` on, and what its cache held at the end.

    Of the window [1, tokens] the first `context_tokens` are read in float, once for all policies; what follows is
    predicted, step by step. The first policy's predictions are what the others' are held against.
    """
    context = read_context(model, window[:, :context_tokens], features_of(policies))
    rest = window[:, context_tokens:]
    positions = range(context_tokens, window.shape[1])
    expected: list[Tensor] = []
    found = {}
    for policy in policies:
        session = Session(model, policy)
        session.fill(context)
        parts = []
        for step, logits in enumerate(follow(model, session, rest, context.logits, step_tokens)):
            predicted = logits.float().log_softmax(dim=-1)
            if policy is policies[0]:
                expected.append(predicted)
            wanted = rest[0, step * step_tokens :][: len(predicted)]
            parts.append(
                {
                    "nll": -predicted.gather(1, wanted[:, None])[:, 0],
                    "kl_divergence": kl_divergence(expected[step], predicted),
                    "same_top_token": predicted.argmax(dim=-1) == expected[step].argmax(dim=-1),
                }
            )
        columns = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
        found[policy.name] = pd.DataFrame({"position": positions, **columns}), session.sizes
    return found
