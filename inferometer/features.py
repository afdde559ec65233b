"""What single tokens are to a model: how sure it was, how much they surprise it, and how much it makes of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel


def entropy(logits: Tensor) -> Tensor:
    """Entropy [...] in nats of the distributions that logits [..., vocabulary] stand for (Shannon 1948)."""
    uncertainty: Tensor = torch.special.entr(logits.float().softmax(dim=-1)).sum(dim=-1)
    return uncertainty


def rarity(logits: Tensor, tokens: Tensor) -> Tensor:
    """-log p in nats of each of the tokens [...] under the logits [..., vocabulary] that predict it."""
    log_probability = logits.float().log_softmax(dim=-1)
    return -log_probability.gather(-1, tokens[..., None])[..., 0]


@dataclass(frozen=True)
class Saliency:
    """How much the predictions of a pass hang on each of its tokens, and the logits of that pass.

    `norm` [tokens] is the L2 norm of the gradient with respect to a token's input embedding (Simonyan et al. 2014, Li
    et al. 2016), `gradient_input` [tokens] its dot product with the embedding (Shrikumar et al. 2016), which has a
    sign; both in float32. `logits` [tokens, vocabulary] are in the model's dtype.
    """

    norm: Tensor
    gradient_input: Tensor
    logits: Tensor


def saliency(
    model: PreTrainedModel, tokens: Tensor, cache: Cache | None = None, *, last_only: bool = False
) -> Saliency:
    """Saliency of tokens [1, tokens] for what the model predicts after them.

    The gradient is that of the sum, over these tokens' positions, of the likeliest next token's logit; with `last_only`
    that of the last position's alone. What the cache holds counts as constant; the cache grows by these tokens.
    """
    embedded = model.get_input_embeddings()(tokens).detach().requires_grad_()
    with torch.enable_grad():
        output: Any = model(inputs_embeds=embedded, past_key_values=cache, use_cache=cache is not None)
        best = output.logits[0].max(dim=-1).values
        (gradient,) = torch.autograd.grad(best[-1] if last_only else best.sum(), embedded)
    if cache is not None:
        _forget_graph(cache)
    gradient = gradient[0].float()
    return Saliency(
        norm=gradient.norm(dim=-1),
        gradient_input=(gradient * embedded.detach()[0].float()).sum(dim=-1),
        logits=output.logits[0].detach(),
    )


def _forget_graph(cache: Cache) -> None:
    """Keep a cache's values and not how they came about, which would hold on to all of the pass."""
    for layer in cache.layers:
        for name, value in vars(layer).items():
            if isinstance(value, Tensor):
                setattr(layer, name, value.detach())


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Run the block with attention that can show its weights; afterwards it is computed as before."""
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(before)


@dataclass(frozen=True)
class Attention:
    """How much later tokens look at each token of a pass, and the logits [tokens, vocabulary] of that pass.

    `received` [tokens] is the mean over layers, heads and positions i > j of the attention weight a_ij; NaN for the
    last token, which none sees yet.
    """

    received: Tensor
    logits: Tensor


@torch.no_grad()
def attention(model: PreTrainedModel, tokens: Tensor, cache: Cache | None = None) -> Attention | str:
    """The attention that tokens [1, tokens] receive from each other, or why that is not known; the cache grows by them.

    The weights of all layers are in memory at once: layers * heads * tokens * tokens seen, in the model's dtype.
    """
    with _eager(model):
        output: Any = model(tokens, past_key_values=cache, use_cache=cache is not None, output_attentions=True)
    count = tokens.shape[1]
    weights = [layer[0, ..., -count:].float() for layer in output.get("attentions") or () if layer is not None]
    if not weights:
        return f"{type(model).__name__} does not give its attention weights"
    by_pair = torch.stack([layer.mean(dim=0) for layer in weights]).mean(dim=0)
    later = torch.arange(count - 1, -1, -1, device=by_pair.device)
    return Attention(by_pair.tril(diagonal=-1).sum(dim=0) / later, output.logits[0])


def received_attention(model: PreTrainedModel, tokens: Tensor) -> Tensor | str:
    """What `attention` finds received [tokens] by tokens [1, tokens], or why that is not known."""
    found = attention(model, tokens)
    return found if isinstance(found, str) else found.received
