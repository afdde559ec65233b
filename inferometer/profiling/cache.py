"""What the KV cache gains: writing with it and without, and whether both come to the same."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.device import Device, why_no_memory
from inferometer.profiling.generation import random_prompt
from inferometer.samples import refusal
from inferometer.timing import WHOLE, Enough, Phase, interleaved_phases, warm_up
from inferometer.writing import read, write, write_without_cache

# Of the largest logit: sums come in another order, and the narrower the dtype, the more that moves them.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class Arm:
    """One thing to be timed."""

    prompt_tokens: int
    new_tokens: int
    cache: bool


def _write(model: PreTrainedModel, prompt: Tensor, arm: Arm) -> Tensor:
    if not arm.cache:
        return write_without_cache(model, prompt, arm.new_tokens)
    token, cache = read(model, prompt)
    return torch.cat([token, write(model, token, cache, arm.new_tokens - 1)], dim=1)


def _work(model: PreTrainedModel, prompt: Tensor, arm: Arm) -> Iterator[Phase]:
    _write(model, prompt, arm)
    yield WHOLE, 1


@torch.inference_mode()
def _logits(model: PreTrainedModel, prompt: Tensor, new_tokens: int) -> tuple[Tensor, Tensor]:
    """Logits [new_tokens, vocabulary] after each written token: by steps over a cache, and of one pass without."""
    token, cache = read(model, prompt)
    written, steps = [token], []
    for _ in range(new_tokens):
        output: Any = model(written[-1], past_key_values=cache, use_cache=True)
        steps.append(output.logits[0, -1])
        written.append(output.logits[:, -1:].argmax(dim=-1))
    tokens = torch.cat([prompt, *written[:-1]], dim=1)
    whole: Any = model(tokens, use_cache=False, logits_to_keep=new_tokens)
    return torch.stack(steps).float(), whole.logits[0].float()


def _checked(model: PreTrainedModel, prompt_tokens: int, new_tokens: int) -> dict[str, object]:
    """The columns of CACHE_CHECKS for one prompt that depend on what comes out; the reason where memory runs out."""
    try:
        with_cache, without = _logits(model, random_prompt(model, 1, prompt_tokens), new_tokens)
    except (RuntimeError, MemoryError) as error:
        return {"difference": None, "largest_logit": None, "same_tokens": None, "reason": why_no_memory(error)}
    return {
        "difference": float((with_cache - without).abs().max()),
        "largest_logit": float(without.abs().max()),
        "same_tokens": bool((with_cache.argmax(dim=-1) == without.argmax(dim=-1)).all()),
        "reason": None,
    }


def check(model: PreTrainedModel, prompt_tokens: Sequence[int], new_tokens: int, device: Device) -> pd.DataFrame:
    """The CACHE_CHECKS table: both ways are fed the tokens that the cached one writes."""
    rows = [
        {"prompt_tokens": tokens, "new_tokens": new_tokens, **_checked(model, tokens, new_tokens)}
        for tokens in prompt_tokens
    ]
    return pd.DataFrame(rows).assign(
        tolerance=TOLERANCES[model.dtype], dtype=str(model.dtype).removeprefix("torch."), device=device.kind
    )


def measure(
    model: PreTrainedModel, checks: pd.DataFrame, new_tokens: int, enough: Enough, device: Device
) -> pd.DataFrame:
    """The CACHE table: raw samples of every prompt of `checks` with and without the cache, which take turns.

    CACHE_CHECKS were made before and read every prompt both ways, so what is made once is there. Prompts for which
    there was no memory then are rows that say so.
    """
    prompts = {int(tokens): random_prompt(model, 1, int(tokens)) for tokens in checks["prompt_tokens"]}
    reasons = dict(zip(prompts, checks["reason"], strict=True))
    arms = [Arm(tokens, new_tokens, cache) for tokens in prompts for cache in (False, True)]
    fitting = [arm for arm in arms if pd.isna(reasons[arm.prompt_tokens])]
    if fitting:
        warm_up(partial(_write, model, prompts[fitting[-1].prompt_tokens], fitting[-1]), device)
    works = {arm: partial(_work, model, prompts[arm.prompt_tokens], arm) for arm in fitting}
    refused = [{**asdict(arm), **refusal(str(reasons[arm.prompt_tokens]))} for arm in arms if arm not in works]
    rows = [
        {**asdict(sample.arm), **sample.columns, "reason": None} for sample in interleaved_phases(works, enough, device)
    ]
    return pd.DataFrame(rows + refused).assign(dtype=str(model.dtype).removeprefix("torch."), device=device.kind)
