"""Is the decoder what it claims to be? Four properties that must hold for any weights, each with its measured error.

    cache       read in two passes, the second with the cache of the first, a prompt has the logits of one pass
    sequential  so it has token by token
    causality   whatever is changed in the future of a position, its logits stay
    attention   every layer's attention is PyTorch's own scaled_dot_product_attention

The differences are those of float sums in another order. A fault, such as a mask that lets one future token through or
a cache that forgets a position, is many orders larger.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from inferometer.device import Device
from inferometer.fundamentals.decoder import Cache, Decoder, Layer

TOLERANCE = 1e-4  # of logits that are about 1 in size; a hundredth of what studies allowed that checked a cache
FIXED_LENGTHS = (2, 3, 4, 5, 8, 11, 13, 16, 21, 34)
RANDOM_PROMPTS = 10
SEED = 0


@dataclass(frozen=True)
class Prompt:
    """A prompt [1, tokens], and whether it is one of the `fixed` or of the `random` ones."""

    kind: str
    tokens: Tensor


def prompts(vocabulary: int) -> Iterator[Prompt]:
    """Ten prompts written down by a formula and ten of random length and content, the same every time."""
    for case, length in enumerate(FIXED_LENGTHS):
        places = torch.arange(length)
        yield Prompt("fixed", ((places**2 + 7 * places + 13 * case) % vocabulary)[None])
    chance = torch.Generator().manual_seed(SEED)
    for _ in range(RANDOM_PROMPTS):
        length = int(torch.randint(2, max(FIXED_LENGTHS) + 1, (), generator=chance))
        yield Prompt("random", torch.randint(vocabulary, (1, length), generator=chance))


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _in_passes(decoder: Decoder, passes: tuple[Tensor, ...]) -> Tensor:
    """Logits [1, tokens, vocabulary] of a prompt that is read in several passes over one cache."""
    logits: list[Tensor] = []
    cache: Cache | None = None
    for tokens in passes:
        some, cache = decoder(tokens, cache)
        logits.append(some)
    return torch.cat(logits, dim=1)


def cache_difference(decoder: Decoder, prompt: Tensor) -> float:
    """Largest difference of logits between a prompt [1, tokens] read in two halves and read at once."""
    half = prompt.shape[1] // 2
    return _largest(_in_passes(decoder, (prompt[:, :half], prompt[:, half:])), decoder(prompt)[0])


def sequential_difference(decoder: Decoder, prompt: Tensor) -> float:
    """Largest difference of logits between a prompt [1, tokens] read token by token and read at once."""
    return _largest(_in_passes(decoder, prompt.split(1, dim=1)), decoder(prompt)[0])


def causality_difference(decoder: Decoder, prompt: Tensor) -> float:
    """Largest change of any logits [1, tokens, vocabulary] when all tokens in their future are replaced by others."""
    length = prompt.shape[1]
    lies_ahead = torch.ones(length, length, dtype=torch.bool, device=prompt.device).triu(diagonal=1)
    others = (prompt + 1) % decoder.shape.vocabulary
    changed = decoder(torch.where(lies_ahead, others, prompt))[0]  # row t keeps the tokens up to position t
    unchanged = decoder(prompt.expand(length, length))[0]
    return _largest(changed[~lies_ahead], unchanged[~lies_ahead])


def attention_difference(decoder: Decoder, prompt: Tensor) -> float:
    """Largest difference between each layer's attention and PyTorch's, on the states that the layer really reads."""
    states, differences = decoder.embed(prompt), []
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        attention, normed = layer.attention, layer.attention_norm(states)
        theirs = functional.scaled_dot_product_attention(
            attention.query(normed), attention.key(normed), attention.value(normed), is_causal=True
        )
        differences.append(_largest(attention(normed, decoder.mask)[0], attention.output(theirs)))
        states, _ = layer(states, decoder.mask)
    return max(differences)


CHECKS: Mapping[str, Callable[[Decoder, Tensor], float]] = {
    "cache": cache_difference,
    "sequential": sequential_difference,
    "causality": causality_difference,
    "attention": attention_difference,
}


@torch.inference_mode()
def check(decoder: Decoder, device: Device) -> pd.DataFrame:
    """The DECODER_CHECKS table of a decoder that is on `device`: every check on every prompt."""
    rows = [
        {
            "check": name,
            "case": case,
            "kind": prompt.kind,
            "tokens": prompt.tokens.shape[1],
            "difference": (difference := measure(decoder, prompt.tokens.to(device.torch_device))),
            "tolerance": TOLERANCE,
            "holds": difference <= TOLERANCE,
        }
        for name, measure in CHECKS.items()
        for case, prompt in enumerate(prompts(decoder.shape.vocabulary))
    ]
    return pd.DataFrame(rows).assign(device=device.kind, dtype="float32")
