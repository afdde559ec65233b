"""A decoder written by hand: everything that makes a language model write, and nothing else. Start reading here.

A decoder-only transformer reads tokens x_1 ... x_n and says for each position which token may come next. This one has
two layers and one attention head; large models have more of both, and nearly the same parts. From the inside out:

    Attention   every position gathers what it needs from itself and the positions before it,
    Layer       attention, then a small network that works on what was gathered; both add to what was there before,
    Decoder     tokens in, one layer after the other, logits out,
    generate    ask for the next token, append it, ask again.

Keys and values of a position depend on the tokens up to it and never on later ones. So they need to be computed once
only: whoever keeps them, in a cache, has to feed no more than the newest token through the model. That is what a KV
cache is. It changes how long the answer takes and how much memory that needs, and nothing about the answer.

    decoder = Decoder(Shape(vocabulary=1000, width=50, hidden=100, layers=2, context=128))
    generate(decoder, torch.tensor([[3, 1, 4]]), new_tokens=20, temperature=0.8)

Shapes are written in brackets: [batch, tokens, width]. `checks.py` beside this file measures that all this is true.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """How large a decoder is; `context` is the number of positions that it can tell apart."""

    vocabulary: int
    width: int
    hidden: int
    layers: int
    context: int


@dataclass(frozen=True)
class Past:
    """What one layer's attention remembers: keys and values [batch, tokens, width] of all positions so far."""

    keys: Tensor
    values: Tensor

    def followed_by(self, keys: Tensor, values: Tensor) -> "Past":
        """This past and what came after it. A past is never changed, so two futures may share one."""
        return Past(torch.cat([self.keys, keys], dim=1), torch.cat([self.values, values], dim=1))

    @property
    def tokens(self) -> int:
        """How many positions are remembered."""
        return self.keys.shape[1]


Cache = list[Past]  # one for each layer


def causal_mask(context: int) -> Tensor:
    """What is added to the score of query and key [context, context] so that no position sees a later one.

    It is 0 where the key may be seen, and -inf, of which softmax makes a weight of zero, where it lies ahead.
    """
    return torch.full((context, context), -math.inf).triu(diagonal=1)


class Attention(nn.Module):
    """Every position asks a question, and takes the answers of those that match (Vaswani et al. 2017, equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)

    def forward(self, states: Tensor, mask: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """New states [batch, tokens, width] to what they gather, and the past that now includes them.

        Only the new positions ask, yet all are asked: of the mask these are the rows of the new ones, and the columns
        of all. A single new token may look at everything, so that its row holds nothing but zeros.
        """
        queries, keys, values = self.query(states), self.key(states), self.value(states)
        now = past.followed_by(keys, values) if past else Past(keys, values)
        scores = queries / math.sqrt(queries.shape[-1]) @ now.keys.transpose(1, 2)
        ahead = mask[now.tokens - states.shape[1] : now.tokens, : now.tokens]
        weights = (scores + ahead).softmax(dim=-1)
        return self.output(weights @ now.values), now


class Layer(nn.Module):
    """Attention, then a small network on each position. Both read a normed copy and add to the original."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, states: Tensor, mask: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """States [batch, tokens, width] to states of the same shape, and what attention remembers of them."""
        gathered, now = self.attention(self.attention_norm(states), mask, past)
        states = states + gathered
        return states + self.feed_forward(self.feed_forward_norm(states)), now


class Decoder(nn.Module):
    """Tokens to logits. With a cache, only tokens that are not in it yet are fed."""

    mask: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Embedding(shape.context, shape.width)
        self.layers = nn.ModuleList(Layer(shape.width, shape.hidden) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary)
        self.register_buffer("mask", causal_mask(shape.context), persistent=False)  # not learned, but goes along

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """States [batch, tokens, width] that say which token stands where; `first` is the position of the first one.

        Raises ValueError where a token would stand beyond the context: nothing was learned for such a position.
        """
        end = first + tokens.shape[1]
        if end > self.shape.context:
            raise ValueError(f"{end} tokens do not fit a context of {self.shape.context}")
        states: Tensor = self.token(tokens) + self.position.weight[first:end]
        return states

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Tokens [batch, tokens] to logits [batch, tokens, vocabulary], and the cache that the next call may use."""
        states = self.embed(tokens, first=cache[0].tokens if cache else 0)
        pasts: Sequence[Past | None] = cache or [None] * len(self.layers)
        remembered: Cache = []
        for layer, past in zip(self.layers, pasts, strict=True):
            states, now = layer(states, self.mask, past)
            remembered.append(now)
        return self.head(self.norm(states)), remembered


def pick(logits: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
    """A token [batch, 1] for logits [batch, vocabulary]: the likeliest at temperature 0, else one drawn by chance.

    A low temperature makes likely tokens likelier still, a high one levels them. Chance comes from the `generator`.
    """
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    return torch.multinomial(functional.softmax(logits / temperature, dim=-1), 1, generator=generator)


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompt: Tensor,
    new_tokens: int,
    *,
    temperature: float = 0.0,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A prompt [batch, tokens] with `new_tokens` written after it.

    With the cache each step feeds the one token that is new; without it, everything from the start again.
    """
    tokens, cache = prompt, None
    for _ in range(new_tokens):
        logits, grown = decoder(tokens[:, cache[0].tokens :] if cache else tokens, cache)
        cache = grown if use_cache else None
        tokens = torch.cat([tokens, pick(logits[:, -1], temperature, generator)], dim=1)
    return tokens
