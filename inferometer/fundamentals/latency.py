"""How long the hand-written decoder takes to write, with its cache and without."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import pandas as pd
import torch

from inferometer.device import Device
from inferometer.fundamentals.decoder import Decoder, generate
from inferometer.timing import interleaved

SHORT_PROMPT = 10  # tokens that are there before the writing starts, where its length is varied
FEW_NEW = 20  # tokens that are written, where the length of the prompt is varied
SEED = 0


@dataclass(frozen=True)
class Arm:
    """One thing to be timed; `varied` names the length that differs among those that it is compared with."""

    varied: str
    prompt_tokens: int
    new_tokens: int
    cache: bool


def arms(tokens: Sequence[int]) -> Iterator[Arm]:
    """With and without the cache: so many tokens written after a short prompt, and a few written after so many."""
    for count in tokens:
        for cache in (False, True):
            yield Arm("new_tokens", SHORT_PROMPT, count, cache)
            yield Arm("prompt_tokens", count, FEW_NEW, cache)


def context_for(tokens: Sequence[int]) -> int:
    """Positions that the longest of all arms needs."""
    return max(arm.prompt_tokens + arm.new_tokens for arm in arms(tokens))


def measure(decoder: Decoder, tokens: Sequence[int], repetitions: int, device: Device) -> pd.DataFrame:
    """The DECODER_LATENCY table: raw samples of every arm, one batch element, greedy."""
    chance = torch.Generator().manual_seed(SEED)

    def work(arm: Arm) -> Callable[[], object]:
        prompt = torch.randint(decoder.shape.vocabulary, (1, arm.prompt_tokens), generator=chance)
        return partial(generate, decoder, prompt.to(device.torch_device), arm.new_tokens, use_cache=arm.cache)

    every = {arm: work(arm) for arm in arms(tokens)}
    for arm, call in every.items():
        if arm.varied == "prompt_tokens":  # few steps, yet at all lengths: memory and kernels are ready afterwards
            call()
    rows = [{**asdict(sample.arm), **sample.columns} for sample in interleaved(every, repetitions, device)]
    return pd.DataFrame(rows).assign(device=device.kind, dtype="float32")
