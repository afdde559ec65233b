"""What the KV cache gains: writing with it and without, and whether both come to the same."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.device import Device
from inferometer.profiling.generation import random_prompt, read, write, write_without_cache
from inferometer.timing import WHOLE, Enough, Phase, interleaved_phases, warm_up

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
    """Logits [new_tokens, vocabulary] before each written token: by steps over a cache, and of one pass without."""
    token, cache = read(model, prompt)
    written, steps = [token], []
    for _ in range(new_tokens):
        output: Any = model(written[-1], past_key_values=cache, use_cache=True)
        steps.append(output.logits[0, -1])
        written.append(output.logits[:, -1:].argmax(dim=-1))
    tokens = torch.cat([prompt, *written[:-1]], dim=1)
    whole: Any = model(tokens, use_cache=False, logits_to_keep=new_tokens)
    return torch.stack(steps).float(), whole.logits[0].float()


def check(model: PreTrainedModel, prompt_tokens: Sequence[int], new_tokens: int, device: Device) -> pd.DataFrame:
    """The CACHE_CHECKS table: both ways are fed the tokens that the cached one writes."""
    rows = []
    for tokens in prompt_tokens:
        with_cache, without = _logits(model, random_prompt(model, 1, tokens), new_tokens)
        rows.append(
            {
                "prompt_tokens": tokens,
                "new_tokens": new_tokens,
                "difference": float((with_cache - without).abs().max()),
                "largest_logit": float(without.abs().max()),
                "same_tokens": bool((with_cache.argmax(dim=-1) == without.argmax(dim=-1)).all()),
                "tolerance": TOLERANCES[model.dtype],
            }
        )
    return pd.DataFrame(rows).assign(dtype=str(model.dtype).removeprefix("torch."), device=device.kind, reason=None)


def measure(
    model: PreTrainedModel, prompt_tokens: Sequence[int], new_tokens: int, enough: Enough, device: Device
) -> pd.DataFrame:
    """The CACHE table: raw samples of every prompt with and without the cache, which take turns."""
    arms = [Arm(tokens, new_tokens, cache) for tokens in prompt_tokens for cache in (False, True)]
    prompts = {tokens: random_prompt(model, 1, tokens) for tokens in prompt_tokens}
    calls: dict[Arm, Callable[[], object]] = {
        arm: partial(_write, model, prompts[arm.prompt_tokens], arm) for arm in arms
    }
    for arm in arms:
        if arm.cache:  # reads all lengths that the other arm reads, and is soon done
            warm_up(calls[arm], device)
    works = {arm: partial(_work, model, prompts[arm.prompt_tokens], arm) for arm in arms}
    rows = [{**asdict(sample.arm), **sample.columns} for sample in interleaved_phases(works, enough, device)]
    dtype = str(model.dtype).removeprefix("torch.")
    return pd.DataFrame(rows).assign(dtype=dtype, device=device.kind, reason=None)
