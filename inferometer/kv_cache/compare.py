"""All policies of a study on one model: scored, weighed and timed on the same texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.device import Device
from inferometer.evaluation.choices import Prompt, can_pack
from inferometer.kv_cache import speed
from inferometer.kv_cache.choices import score_questions
from inferometer.kv_cache.perplexity import score_window
from inferometer.kv_cache.policies import Policy
from inferometer.kv_cache.session import why_not
from inferometer.progress import progress
from inferometer.samples import refusal
from inferometer.timing import Enough


@dataclass(frozen=True)
class Texts:
    """What policies are compared on: windows [1, tokens] of which `context_tokens` are given and the rest predicted in
    steps, questions with their prompts by question set, and prompts [1, tokens] to write after."""

    windows: Sequence[Tensor]
    context_tokens: int
    step_tokens: int
    questions: pd.DataFrame
    prompts: Mapping[str, Sequence[Prompt]]
    long_prompts: Sequence[Tensor]


@dataclass
class Measured:
    """Rows of one policy's CACHE_PERPLEXITY, CACHE_CHOICES, CACHE_LATENCY and CACHE_MEMORY, without what all share."""

    perplexity: list[pd.DataFrame] = field(default_factory=list)
    choices: list[pd.DataFrame] = field(default_factory=list)
    latency: list[dict[str, Any]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)

    def weigh(self, experiment: str, index: int, sizes: Mapping[str, float | None]) -> None:
        """Add what a cache held."""
        self.memory.append({"experiment": experiment, "index": index, **sizes, "peak_bytes": None, "reason": None})


def refused(reason: str, texts: Texts) -> Measured:
    """The rows of a policy that can't run."""
    lengths = [prompt.shape[1] for prompt in texts.long_prompts]
    return Measured(
        latency=[{"prompt_tokens": tokens, **refusal(reason)} for tokens in lengths],
        memory=[speed.unweighed(tokens, reason) for tokens in lengths],
    )


def _score_choices(
    model: PreTrainedModel, policies: Sequence[Policy], texts: Texts, found: Mapping[str, Measured], *, packs: bool
) -> None:
    asked = 0
    for prompts in texts.prompts.values():
        for prompt, scores in score_questions(model, policies, prompts, packs=packs):
            rows = texts.questions.iloc[prompt.owners]
            endings = rows[["question_set", "item", "ending", "is_correct"]].assign(
                characters=rows["text"].str.len(),
                tokens=[len(ending) for ending in prompt.endings],
                context_tokens=len(prompt.context) - 1,
            )
            for name, (log_likelihoods, sizes) in scores.items():
                found[name].choices.append(endings.assign(log_likelihood=log_likelihoods))
                found[name].weigh("choices", asked, sizes)
            asked += 1


def compare(
    model: PreTrainedModel, policies: Sequence[Policy], texts: Texts, enough: Enough, device: Device
) -> Mapping[str, Measured]:
    """Measure every policy; the first is what predictions are held against, and must be the float cache."""
    packs = can_pack(model, [prompt for prompts in texts.prompts.values() for prompt in prompts])
    reasons = {policy.name: why_not(model, policy) for policy in policies}
    found = {name: Measured() if reason is None else refused(reason, texts) for name, reason in reasons.items()}
    able = [policy for policy in policies if reasons[policy.name] is None]
    for index, window in enumerate(progress(texts.windows, "scoring windows")):
        scored = score_window(model, able, window, texts.context_tokens, texts.step_tokens)
        for name, (rows, sizes) in scored.items():
            found[name].perplexity.append(rows.assign(window=index))
            found[name].weigh("perplexity", index, sizes)
    _score_choices(model, able, texts, found, packs=packs)
    for prompt in texts.long_prompts:
        for name, (latency, memory) in speed.measure(model, able, prompt, enough, device).items():
            found[name].latency += [{"prompt_tokens": prompt.shape[1], **row} for row in latency]
            found[name].memory += memory
    return found
