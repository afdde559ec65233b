"""Letting a model write by chance: all temperatures and seeds of a prompt side by side, each with draws of its own."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from inferometer.device import Device
from inferometer.features import entropy, rarity
from inferometer.generation.loops import repeated
from inferometer.writing import decoded, next_logits

NO_TOKEN = -1  # for a model whose texts never end


@dataclass(frozen=True)
class Sampling:
    """How to sample: each positive temperature with every seed, 0 once; `top_p` 1 and `top_k` 0 leave all tokens."""

    temperatures: tuple[float, ...]
    seeds: tuple[int, ...]
    new_tokens: int
    top_p: float
    top_k: int

    def rows(self) -> list[tuple[float, int]]:
        """Temperature and seed of every sample of a prompt. At temperature 0 all seeds write the same: one stands."""
        return [
            (float(temperature), seed)
            for temperature in sorted(self.temperatures)
            for seed in (self.seeds if temperature > 0 else self.seeds[:1])
        ]


def _tempered(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Logits [rows, vocabulary] divided by their row's temperature [rows]; at 0 the likeliest token alone is left.

    The largest is taken off first, so that no temperature, however small, makes them infinite.
    """
    best = logits.argmax(dim=-1, keepdim=True)
    greedy = torch.full_like(logits, -torch.inf).scatter(-1, best, 0.0)
    column = temperatures[:, None]
    warm = (logits - logits.gather(-1, best)) / column.where(column > 0, 1.0)
    return warm.where(column > 0, greedy)


def sampling_logits(logits: Tensor, temperatures: Tensor, top_p: float = 1.0, top_k: int = 0) -> Tensor:
    """Logits [rows, vocabulary] of what is drawn from, of a model's logits [rows, vocabulary] and temperatures [rows].

    Temperature first, then the `top_k` likeliest tokens (Fan et al. 2018; 0: all), then of these the fewest that hold
    the probability `top_p` (Holtzman et al. 2020): the order of transformers. What is never drawn has -inf.
    """
    kept = _tempered(logits.float(), temperatures.float())
    if top_k > 0:
        largest, _ = kept.topk(min(top_k, kept.shape[-1]), dim=-1)
        kept = kept.masked_fill(kept < largest[:, -1:], -torch.inf)
    if top_p < 1:
        ordered, places = kept.sort(dim=-1, descending=True)
        probability = ordered.double().softmax(dim=-1)
        likelier = probability.cumsum(dim=-1) - probability
        kept = kept.masked_fill((likelier >= top_p).gather(-1, places.argsort(dim=-1)), -torch.inf)
    return kept


def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """A token [rows] of each distribution that logits [rows, vocabulary] stand for, by inverting its cumulative sum.

    `uniforms` [rows] lie in (0, 1], with 0 left out: a token without probability is never reached.
    """
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    return torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:])[:, 0]


def uniforms(prompt: Tensor, seed: int, count: int) -> Tensor:
    """So many draws [count] in (0, 1] for a prompt [1, tokens] and seed.

    They hang on nothing else: a sample is the same whichever others are written beside it, and temperatures are
    compared on equal draws.
    """
    generator = np.random.default_rng([seed, *prompt[0].tolist()])
    return torch.from_numpy(1 - generator.random(count))


@torch.inference_mode()
def _write(model: PreTrainedModel, prompt: Tensor, sampling: Sampling, end: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Tokens [rows, steps] after a prompt [1, tokens], and what each step was, by column of SAMPLES [rows, steps].

    Stops early when every row has written the token that ends a text; a row that has goes on, for nothing.
    """
    rows = sampling.rows()
    temperatures = torch.tensor([temperature for temperature, _ in rows], device=prompt.device)
    draws = torch.stack([uniforms(prompt, seed, sampling.new_tokens) for _, seed in rows]).to(prompt.device)
    cache = DynamicCache(config=model.config)
    logits = next_logits(model, prompt, cache).expand(len(rows), -1)
    cache.batch_repeat_interleave(len(rows))
    tokens: list[Tensor] = []
    steps: dict[str, list[Tensor]] = {"entropy": [], "sampling_entropy": [], "nll": []}
    ended = torch.zeros(len(rows), dtype=torch.bool, device=prompt.device)
    for step in range(sampling.new_tokens):
        if step > 0:
            logits = next_logits(model, tokens[-1][:, None], cache)
        drawn_from = sampling_logits(logits, temperatures, sampling.top_p, sampling.top_k)
        token = draw(drawn_from, draws[:, step])
        tokens.append(token)
        steps["entropy"].append(entropy(logits))
        steps["sampling_entropy"].append(entropy(drawn_from))
        steps["nll"].append(rarity(logits, token))
        ended |= token == end
        if ended.all():
            break
    return torch.stack(tokens, dim=1), {name: torch.stack(values, dim=1) for name, values in steps.items()}


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Mapping[str, Tensor],
    sampling: Sampling,
    device: Device,
) -> pd.DataFrame:
    """The SAMPLES table of encoded prompts [1, tokens]: the samples of a prompt are written side by side in one batch.

    Means are over the tokens of a text, the one that ends it included.
    """
    end = NO_TOKEN if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
    table: list[dict[str, object]] = []
    for name, prompt in prompts.items():
        written, steps = _write(model, prompt.to(model.device), sampling, end)
        for row, (temperature, seed) in enumerate(sampling.rows()):
            ids: list[int] = written[row].tolist()
            ended_after = ids.index(end) if end in ids else None
            text = ids[:ended_after]
            drawn = ids[: len(text) + 1]
            table.append(
                {
                    "prompt": name,
                    "temperature": temperature,
                    "seed": seed,
                    "text": decoded(tokenizer, written[row]),
                    "token_ids": " ".join(map(str, text)),
                    "tokens": len(drawn),
                    "ended_after": ended_after,
                    **{column: float(values[row, : len(drawn)].double().mean()) for column, values in steps.items()},
                    "repeated": sum(repeated(text)) / max(1, len(text)),
                }
            )
    machine = {"device": device.kind, "dtype": str(model.dtype).removeprefix("torch.")}
    return pd.DataFrame(table).astype({"ended_after": "Int64"}).assign(**machine)
