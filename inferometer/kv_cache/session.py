"""A cache under a policy while a model reads and writes, and contexts that are read once for all policies."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel, QuantizedCache

from inferometer.features import entropy, rarity, saliency
from inferometer.held import held_bytes
from inferometer.kv_cache.cache import PackedCache
from inferometer.kv_cache.policies import Budget, Policy

GRID_BITS = 32  # zero point and span of a group, in float16

Known = Mapping[str, list[float]]  # features of tokens by their names, as far as a policy asks for them


@dataclass(frozen=True)
class Context:
    """Tokens [1, tokens] that were read in float: their keys and values by layer, and what is known of each token.

    `logits` [vocabulary] predict the token behind them.
    """

    tokens: Tensor
    states: list[tuple[Tensor, Tensor]]
    known: Known
    logits: Tensor


def _known(logits: Tensor, tokens: Tensor, before: Tensor | None) -> Known:
    """Entropy and rarity of tokens [tokens], from logits [tokens, vocabulary] behind each and those `before` them.

    Of the first token of all, which nothing comes before, both are infinite: nothing was known.
    """
    predicting = logits[:-1] if before is None else torch.cat([before[None], logits[:-1]])
    first = [math.inf] if before is None else []
    return {
        "entropy": first + entropy(predicting).tolist(),
        "rarity": first + rarity(predicting, tokens[len(first) :]).tolist(),
    }


def _read(
    model: PreTrainedModel, tokens: Tensor, cache: Cache, before: Tensor | None, features: set[str]
) -> tuple[Tensor, Known]:
    """Logits [tokens, vocabulary] behind tokens [1, tokens], and what is known of them as far as `features` ask."""
    found: dict[str, list[float]] = {}
    if "saliency" in features:
        salient = saliency(model, tokens, cache)
        logits, found["saliency"] = salient.logits, salient.norm.tolist()
    else:
        with torch.no_grad():
            output: Any = model(tokens, past_key_values=cache, use_cache=True)
        logits = output.logits[0]
    known = _known(logits, tokens[0], before) if features & {"entropy", "rarity"} else {}
    return logits, {**known, **found}


def read_context(model: PreTrainedModel, tokens: Tensor, features: set[str], past: Context | None = None) -> Context:
    """Read tokens [1, tokens] in float, after those of `past` where there are any."""
    cache = DynamicCache(config=model.config)
    for index, (keys, values) in enumerate(past.states if past else []):
        cache.update(keys, values, index)
    logits, known = _read(model, tokens, cache, past.logits if past else None, features)
    count = tokens.shape[1]
    layers: Any = cache.layers
    states = [(layer.keys[:, :, -count:].clone(), layer.values[:, :, -count:].clone()) for layer in layers]
    return Context(tokens, states, known, logits[-1].clone())


class Session:
    """One text under a policy: its cache, and what hands out bits. Copies (`copy.deepcopy`) go their own ways."""

    def __init__(self, model: PreTrainedModel, policy: Policy) -> None:
        """Start with an empty cache.

        Raises InferometerError where the policy's cache can't serve the model, ImportError without its library.
        """
        self.policy = policy
        self.cache = _empty_cache(model, policy)
        self.tokens = 0
        self.budget = Budget(policy.widths, policy.average_bits) if policy.average_bits is not None else None
        self._random = Random(policy.seed)
        text = model.config.get_text_config()
        channels = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self._values_per_token: int = 2 * text.num_hidden_layers * text.num_key_value_heads * channels
        self._float_bits = 8 * model.dtype.itemsize
        size = policy.packing.group_size if policy.packing else channels
        grids = [size if policy.packing and policy.packing.keys == "per_channel" else min(size, channels)]
        self._grid_bits = sum(GRID_BITS / group for group in (*grids, min(size, channels))) / 2

    @property
    def cache_bytes(self) -> int:
        """Exact bytes of all that the cache holds."""
        return held_bytes(self.cache)

    @property
    def effective_bits(self) -> float:
        """Bits that one number of a key or value takes on average, all that is stored counted in."""
        return 8 * self.cache_bytes / (self.tokens * self._values_per_token)

    def fill(self, context: Context) -> list[int]:
        """Store a context as if the model had just read it; the bits that its tokens got, where they differ."""
        for index, (keys, values) in enumerate(context.states):
            self.cache.update(keys, values, index)
        return self._store(context.tokens.shape[1], context.known)

    def read(self, model: PreTrainedModel, tokens: Tensor, before: Tensor) -> tuple[Tensor, list[int]]:
        """Read tokens [1, tokens] after what is stored: logits [tokens, vocabulary] behind them, and their bits.

        `before` [vocabulary] are the logits that predicted the first of them.
        """
        logits, known = _read(model, tokens, self.cache, before, {str(self.policy.feature)})
        return logits, self._store(tokens.shape[1], known)

    def _store(self, count: int, known: Known) -> list[int]:
        """Say the bits of the newest tokens to a cache that waits for them."""
        start, self.tokens = self.tokens, self.tokens + count
        if self.budget is None:
            return []
        assert isinstance(self.cache, PackedCache)
        held = self._held_back() if self.policy.feature == "recency" else 0
        priorities = self._priorities(start, self.tokens - self.budget.tokens - held, known)
        bits = self.budget.bits(priorities, held, held * (self._float_bits - self._grid_bits))
        self.cache.write(bits)
        return bits

    def _held_back(self) -> int:
        """How many of the last tokens may stay in float within the budget, if all others get the smallest width."""
        assert self.budget is not None
        smallest = self.budget.widths[0]
        dearer = self._float_bits - self._grid_bits - smallest
        return int(self.tokens * (self.budget.average_bits - smallest) / dearer)

    def _priorities(self, start: int, count: int, known: Known) -> list[float]:
        match self.policy.feature:
            case "recency":
                return [0.0] * count
            case "random":
                return [self._random.random() for _ in range(count)]
            case "sinks":
                sinks = self.policy.sink_tokens
                return [math.inf if start + step < sinks else self._random.random() for step in range(count)]
            case feature:
                return known[str(feature)]


def _empty_cache(model: PreTrainedModel, policy: Policy) -> Cache:
    if policy.library == "quanto":
        return QuantizedCache("quanto", model.config, nbits=policy.library_bits)
    return PackedCache(model.config, policy.packing) if policy.packing else DynamicCache(config=model.config)


def follow(
    model: PreTrainedModel, session: Session, tokens: Tensor, before: Tensor, step_tokens: int
) -> Iterator[tuple[Tensor, list[int]]]:
    """Read tokens [1, tokens] in steps, each with the cache as the steps before left it.

    Gives for each step the logits [step, vocabulary] that predict its tokens, and the bits that they got. `before`
    [vocabulary] predict the first.
    """
    for step in tokens.split(step_tokens, dim=1):
        logits, bits = session.read(model, step, before)
        yield torch.cat([before[None], logits[:-1]]), bits
        before = logits[-1]
