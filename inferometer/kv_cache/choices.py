"""Multiple-choice questions in two steps: a context is read and stored, then its endings are read from what is stored.

In one step nothing that is stored would be used, however few its bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from inferometer.evaluation.choices import DELIMITER, Prompt, shared_row, shared_row_mask
from inferometer.kv_cache.policies import Policy
from inferometer.kv_cache.session import Context, Session, features_of, read_context

SEPARATOR = "\n\n"  # between solved questions

Sizes = dict[str, float | None]


def with_shots(questions: pd.DataFrame, solved: pd.DataFrame, shots: int) -> pd.DataFrame:
    """Questions whose contexts begin with `shots` solved ones of their set, the same for all.

    `solved` holds the whole sets; its first questions are shown that are not themselves asked.
    """
    shown = {}
    for name, own in solved.groupby("question_set"):
        asked = set(questions["item"][questions["question_set"] == name])
        right = own[own["is_correct"] & ~own["item"].isin(asked)].sort_values("item").head(shots)
        shown[name] = "".join(right["context"].str.rstrip() + DELIMITER + right["text"] + SEPARATOR)
    return questions.assign(context=questions["question_set"].map(shown) + questions["context"])


def _beginning(prompts: Sequence[Prompt]) -> list[int]:
    """The tokens that all contexts begin with, at most all but two of the shortest."""
    columns = zip(*(prompt.context[:-2] for prompt in prompts), strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _score(model: PreTrainedModel, session: Session, prompt: Prompt, *, packs: bool) -> list[float]:
    """Log-likelihood in nats of each ending behind the last token of a context whose others are stored.

    The endings share a pass where the model `packs`, which uses the session up; else each gets a copy of it.
    """
    last = prompt.context[-1:]
    ways = [prompt] if packs else [Prompt(prompt.context, [ending], [0]) for ending in prompt.endings]
    scores = []
    for way in ways:
        own = session.cache if packs else session.copy().cache
        batch = shared_row([Prompt(last, way.endings, list(range(len(way.endings))))])
        assert batch.segments is not None
        segments = batch.segments.to(model.device)
        layout: dict[str, Tensor] = {}
        if len(way.endings) > 1:
            visible = shared_row_mask(segments, model.dtype)
            past = visible.new_zeros(*visible.shape[:3], session.tokens)
            layout = {"attention_mask": torch.cat([past, visible], dim=-1)}
        output: Any = model(
            batch.tokens.to(model.device),
            past_key_values=own,
            use_cache=True,
            position_ids=segments[:1] + session.tokens,
            **layout,
        )
        _, places, targets, owners = batch.wanted.to(model.device)
        found = -cross_entropy(output.logits[0, places].float(), targets, reduction="none").double()
        scores += found.new_zeros(len(way.endings)).index_add_(0, owners, found).tolist()
    return scores


@torch.no_grad()
def score_questions(
    model: PreTrainedModel, policies: Sequence[Policy], prompts: Sequence[Prompt], *, packs: bool
) -> Iterator[tuple[Prompt, Mapping[str, tuple[list[float], Sizes]]]]:
    """For each prompt of one question set and each policy: log-likelihoods of the endings, and what the cache held.

    What all contexts begin with is read once, and so is the rest of each context, all in float and for all policies;
    each policy then stores both. The last token of a context is read with the endings, so that all of their tokens
    are predicted from what is stored.
    """
    features, beginning = features_of(policies), _beginning(prompts)
    start: Context | None = None
    begun = {policy.name: Session(model, policy) for policy in policies}
    if beginning:
        start = read_context(model, torch.tensor([beginning], device=model.device), features)
        for session in begun.values():
            session.fill(start)
    for prompt in prompts:
        rest = torch.tensor([prompt.context[len(beginning) : -1]], device=model.device)
        context = read_context(model, rest, features, start)
        found = {}
        for policy in policies:
            session = begun[policy.name].copy()
            session.fill(context)
            sizes = session.sizes
            found[policy.name] = _score(model, session, prompt, packs=packs), sizes
        yield prompt, found
