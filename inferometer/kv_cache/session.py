"""A cache under a policy while a model reads and writes, and contexts that are read once for all policies."""

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel, QuantizedCache

from inferometer.errors import InferometerError
from inferometer.features import attention, entropy, rarity, saliency
from inferometer.heads import heads_of
from inferometer.held import held_bytes
from inferometer.kv_cache.cache import PackedCache
from inferometer.kv_cache.policies import Budget, Policy
from inferometer.kv_cache.theory import Kept, packed_bytes

PIECE_TOKENS = 512  # of a context that is read at once

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


def features_of(policies: Iterable[Policy]) -> set[str]:
    """The features that any of the policies asks for."""
    return {policy.feature for policy in policies if policy.feature}


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
    logits: Tensor | None = None
    if "received_attention" in features:
        attended = attention(model, tokens, cache)
        if isinstance(attended, str):
            raise InferometerError(f"{attended}; leave out policies of the feature received_attention.")
        logits, found["received_attention"] = attended.logits, _with_newest(attended.received.tolist())
        if "saliency" in features:
            cache.crop(-tokens.shape[1])  # to be read again
    if "saliency" in features:
        salient = saliency(model, tokens, cache)
        logits, found["saliency"] = salient.logits, salient.norm.tolist()
    if logits is None:
        with torch.no_grad():
            output: Any = model(tokens, past_key_values=cache, use_cache=True)
        logits = output.logits[0]
    known = _known(logits, tokens[0], before) if features & {"entropy", "rarity"} else {}
    return logits, {**known, **found}


def _with_newest(received: list[float]) -> list[float]:
    """Attention received, where the newest token, which none has seen yet, counts as the mean of the others."""
    *others, _ = received
    return [*others, sum(others) / len(others) if others else 0.0]


def read_context(model: PreTrainedModel, tokens: Tensor, features: set[str], past: Context | None = None) -> Context:
    """Read tokens [1, tokens] in float, after those of `past` where there are any.

    They are read in pieces, since logits take a vocabulary for each; the saliency of a token is that for its piece.
    """
    cache = DynamicCache()  # without the configuration it keeps all tokens, also where attention slides
    for index, (keys, values) in enumerate(past.states if past else []):
        cache.update(keys, values, index)
    before = past.logits if past else None
    known: dict[str, list[float]] = {}
    for piece in tokens.split(PIECE_TOKENS, dim=1):
        logits, found = _read(model, piece, cache, before, features)
        known = {name: known.get(name, []) + values for name, values in found.items()}
        before = logits[-1].clone()
    assert before is not None
    layers: Any = cache.layers
    start = layers[0].keys.shape[2] - tokens.shape[1]
    states = [(layer.keys[:, :, start:].clone(), layer.values[:, :, start:].clone()) for layer in layers]
    return Context(tokens, states, known, before)


class Session:
    """One text under a policy: its cache, and what hands out bits."""

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
        heads = heads_of(text.to_dict(), f"the configuration of {type(model).__name__}")
        self._kept = Kept(text.num_hidden_layers, heads, model.dtype.itemsize)

    def copy(self) -> "Session":
        """A session that goes on from here by itself.

        Libraries' tensors that are made of others can't be copied, and need not be: they are never written to.
        """
        held = (value for layer in self.cache.layers for value in vars(layer).values())
        return deepcopy(self, {id(value): value for value in held if hasattr(value, "__tensor_flatten__")})

    @property
    def sizes(self) -> dict[str, float | None]:
        """The columns of CACHE_MEMORY that say how much the cache holds."""
        held = held_bytes(self.cache)
        return {
            "tokens": self.tokens,
            "cache_bytes": held,
            "predicted_bytes": self._predicted_bytes,
            "effective_bits": 8 * held / (self.tokens * self._kept.numbers_per_token),
        }

    @property
    def _predicted_bytes(self) -> float | None:
        packing, bits = self.policy.packing, self.policy.bits
        if self.policy.library:
            return None
        if packing is None or bits is None:
            return self.tokens * self._kept.numbers_per_token * self._kept.float_bytes
        floats = min(packing.sink_tokens + packing.recent_tokens, self.tokens)
        return (
            packed_bytes(
                self._kept,
                self.tokens - floats,
                bits,
                group_size=packing.group_size,
                per_channel=packing.keys == "per_channel",
            )
            + floats * self._kept.numbers_per_token * self._kept.float_bytes
        )

    @property
    def bits(self) -> list[int]:
        """The bits of every token so far; none where all have the same."""
        return self.cache.said_bits if isinstance(self.cache, PackedCache) and self.budget else []

    def fill(self, context: Context) -> None:
        """Store a context as if the model had just read it."""
        for index, (keys, values) in enumerate(context.states):
            self.cache.update(keys, values, index)
        self._store(context.tokens.shape[1], context.known)

    def read(self, model: PreTrainedModel, tokens: Tensor, before: Tensor) -> Tensor:
        """Read tokens [1, tokens] after what is stored, and store them: logits [tokens, vocabulary] behind them.

        `before` [vocabulary] are the logits that predicted the first of them.
        """
        logits, known = _read(model, tokens, self.cache, before, features_of([self.policy]))
        self._store(tokens.shape[1], known)
        return logits

    def _store(self, count: int, known: Known) -> None:
        """Say the bits of the newest tokens to a cache that waits for them."""
        start, self.tokens = self.tokens, self.tokens + count
        if self.budget is None:
            return
        assert isinstance(self.cache, PackedCache)
        if self.policy.feature == "recency":
            self._store_recent(self.cache, count, self.budget)
        else:
            self.cache.write(self.budget.bits(self._priorities(start, count, known)))

    def _store_recent(self, cache: PackedCache, count: int, budget: Budget) -> None:
        """The newest tokens get the largest width, and older ones the smallest as soon as the budget asks for it."""
        least, most = budget.widths[0], budget.widths[-1]
        cache.write([most] * count)
        rich = int(self.tokens * (budget.average_bits - least) / (most - least))
        cache.demote_oldest(cache.said_bits.count(most) - rich, most, least)

    def _priorities(self, start: int, count: int, known: Known) -> list[float]:
        match self.policy.feature:
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


def why_not(model: PreTrainedModel, policy: Policy) -> str | None:
    """Why a policy can't serve a model here, or None: its cache is filled with two tokens and read from."""
    probe = torch.zeros(1, 2, dtype=torch.int64, device=model.device)
    try:
        session = Session(model, policy)
        context = read_context(model, probe, features_of([policy]))
        session.fill(context)
        session.read(model, probe[:, :1], context.logits)
    except InferometerError as error:
        return str(error)
    except (ImportError, OSError, RuntimeError) as error:  # a library that is absent, or that can't build its kernels
        if policy.library is None:
            raise
        return f"the cache of {policy.library} can't run here ({str(error).splitlines()[0]})"
    return None


def follow(
    model: PreTrainedModel, session: Session, tokens: Tensor, before: Tensor, step_tokens: int
) -> Iterator[Tensor]:
    """Read tokens [1, tokens] in steps, each with the cache as the steps before left it.

    Gives for each step the logits [step, vocabulary] that predict its tokens. `before` [vocabulary] predict the first.
    """
    for step in tokens.split(step_tokens, dim=1):
        logits = session.read(model, step, before)
        yield torch.cat([before[None], logits[:-1]])
        before = logits[-1]
