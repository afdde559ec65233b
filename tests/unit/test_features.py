"""Features of single tokens: each against a formula written another way, or against what must be true of it."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from inferometer import features
from inferometer.features import entropy, rarity, received_attention, saliency
from tests.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = torch.tensor([[5, 9, 33, 5, 17, 60, 8, 21]])
KINDS = ("llama", "gemma2", "gpt2", "opt", "gpt_neox", "bloom")


def test_entropy_is_what_scipy_computes() -> None:
    logits = 3 * torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(0))
    expected = stats.entropy(special.softmax(logits.double().numpy(), axis=-1), axis=-1)
    assert np.allclose(entropy(logits), expected, rtol=1e-5)


def test_entropy_of_even_odds_is_the_logarithm_of_their_number_and_of_a_certainty_nothing() -> None:
    assert float(entropy(torch.zeros(50))) == pytest.approx(math.log(50), rel=1e-6)
    assert float(entropy(torch.tensor([0.0, -torch.inf, -torch.inf]))) == 0


def test_half_precision_is_widened_before_anything_is_computed() -> None:
    logits = torch.linspace(-4, 4, 49152).to(torch.bfloat16)
    exact = stats.entropy(special.softmax(logits.double().numpy()))
    assert float(entropy(logits)) == pytest.approx(exact, rel=1e-5)
    assert rarity(logits, torch.tensor(7)).dtype == torch.float32


def test_rarity_is_minus_the_log_of_the_probability() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([0, 39, 12])
    probability = special.softmax(logits.double().numpy(), axis=-1)[range(3), tokens]
    assert np.allclose(rarity(logits, tokens), -np.log(probability), rtol=1e-5)


def test_mean_rarity_is_the_loss_that_the_model_itself_computes() -> None:
    model = tiny_model(outliers=False)
    output = model(TOKENS, labels=TOKENS)
    assert float(rarity(output.logits[0, :-1], TOKENS[0, 1:]).mean()) == pytest.approx(float(output.loss), rel=1e-5)


def double() -> PreTrainedModel:
    """A model in float64, norms and all, so that small differences are worth something."""
    model = tiny_model("gpt2", outliers=False)
    module: nn.Module = model
    module.double()
    return model


def predicted_sum(model: PreTrainedModel, embedded: Tensor, chosen: Tensor, *, last_only: bool) -> float:
    """The sum of the chosen tokens' logits [tokens] over all positions, or the last of them."""
    logits: Tensor = model(inputs_embeds=embedded).logits[0]
    values = logits.gather(1, chosen[:, None])[:, 0]
    return float(values[-1] if last_only else values.sum())


def finite_differences(model: PreTrainedModel, *, last_only: bool) -> Tensor:
    """The gradient [tokens, width] by central differences, one value of an embedding after the other."""
    step, embedded = 1e-5, model.get_input_embeddings()(TOKENS)
    chosen = model(TOKENS).logits[0].argmax(dim=-1)
    gradient = torch.zeros_like(embedded[0])
    for token, channel in np.ndindex(*gradient.shape):
        values = []
        for sign in (1, -1):
            moved = embedded.clone()
            moved[0, token, channel] += sign * step
            values.append(predicted_sum(model, moved, chosen, last_only=last_only))
        gradient[token, channel] = (values[0] - values[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize("last_only", [False, True])
def test_saliency_is_what_finite_differences_of_the_logits_say(last_only: bool) -> None:
    model = double()
    found, gradient = saliency(model, TOKENS, last_only=last_only), finite_differences(model, last_only=last_only)
    assert torch.allclose(found.norm.double(), gradient.norm(dim=-1), rtol=1e-4)
    embedded = model.get_input_embeddings()(TOKENS)[0]
    assert torch.allclose(found.gradient_input.double(), (gradient * embedded).sum(dim=-1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_saliency_is_there_for_every_kind_of_model_and_comes_with_the_logits_of_a_plain_pass(kind: str) -> None:
    model = tiny_model(kind, outliers=False)
    found = saliency(model, TOKENS)
    assert found.norm.shape == found.gradient_input.shape == (TOKENS.shape[1],)
    assert (found.norm > 0).all()
    assert torch.allclose(found.logits, model(TOKENS).logits[0], atol=1e-5)
    assert not found.logits.requires_grad
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


class _Counting(nn.Module):
    """A "model" whose logits are linear in the sum of its inputs so far, so that its gradient is known by heart."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.embedding = nn.Embedding.from_pretrained(torch.randn(64, 4, generator=generator))
        self.head = torch.randn(4, 64, generator=generator)

    def get_input_embeddings(self) -> object:
        return self.embedding

    def forward(self, inputs_embeds: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=inputs_embeds.cumsum(dim=1) @ self.head)


def test_gradient_times_input_adds_up_to_the_logit_of_a_linear_model() -> None:
    model: Any = _Counting()
    found = saliency(model, TOKENS)
    assert float(found.gradient_input.sum()) == pytest.approx(float(found.logits.max(dim=-1).values.sum()), rel=1e-5)
    last = saliency(model, TOKENS, last_only=True)
    assert float(last.gradient_input.sum()) == pytest.approx(float(last.logits[-1].max()), rel=1e-5)
    heads = model.head.T[last.logits[-1].argmax()]
    assert torch.allclose(last.norm, heads.norm().expand(len(last.norm)))


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_saliency_over_a_cache_is_that_of_the_same_tokens_in_one_pass(kind: str, last_only: bool) -> None:
    """Earlier positions do not see later tokens, so nothing of these tokens' gradient passes through the cache."""
    model, cut = tiny_model(kind, outliers=False), 5
    whole = saliency(model, TOKENS, last_only=last_only)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(TOKENS[:, :cut], past_key_values=cache, use_cache=True)
    part = saliency(model, TOKENS[:, cut:], cache, last_only=last_only)
    assert torch.allclose(part.logits, whole.logits[cut:], atol=1e-4)
    assert torch.allclose(part.norm, whole.norm[cut:], rtol=1e-3)
    assert torch.allclose(part.gradient_input, whole.gradient_input[cut:], rtol=1e-2, atol=1e-5)


def test_a_cache_grows_and_keeps_no_graph() -> None:
    model = tiny_model()
    cache = DynamicCache(config=model.config)
    saliency(model, TOKENS, cache)
    assert cache.get_seq_length() == TOKENS.shape[1]
    held = [value for layer in cache.layers for value in vars(layer).values() if isinstance(value, Tensor)]
    assert len(held) == 2 * len(cache.layers)
    assert not any(tensor.requires_grad for tensor in held)
    follower = torch.tensor([[3]])
    joined = torch.cat([TOKENS, follower], dim=1)
    continued = model(follower, past_key_values=cache, use_cache=True).logits[0, -1]
    assert torch.allclose(continued, model(joined).logits[0, -1], rtol=1e-3, atol=1e-3)


def found_attention(model: PreTrainedModel, tokens: Tensor = TOKENS) -> Tensor:
    received = received_attention(model, tokens)
    assert not isinstance(received, str), received
    return received


def uniform(model: PreTrainedModel) -> PreTrainedModel:
    """A model whose queries are zero, so that every token attends evenly to itself and all before it."""
    for name, parameter in model.named_parameters():
        if "q_proj" in name:
            parameter.zero_()
    return model


def test_even_attention_gives_every_token_what_can_be_computed_by_hand() -> None:
    received, tokens = found_attention(uniform(tiny_model())), TOKENS.shape[1]
    expected = [np.mean([1 / (later + 1) for later in range(own + 1, tokens)]) for own in range(tokens - 1)]
    assert received[:-1].tolist() == pytest.approx(expected, rel=1e-5)
    assert received[-1].isnan()


@pytest.mark.parametrize("kind", KINDS)
def test_what_all_tokens_receive_is_what_all_tokens_give_to_others(kind: str) -> None:
    model = tiny_model(kind)
    before = model.config._attn_implementation
    received = found_attention(model)
    model.set_attn_implementation("eager")
    weights = torch.stack(model(TOKENS, output_attentions=True).attentions)[:, 0]
    model.set_attn_implementation(before)
    later = torch.arange(TOKENS.shape[1] - 1, 0, -1)
    given = 1 - weights.diagonal(dim1=-2, dim2=-1).mean(dim=(0, 1))  # rows add up to one
    assert float((received[:-1] * later).sum()) == pytest.approx(float(given.sum()), rel=1e-4)
    assert float(received[-2]) == pytest.approx(float(weights[..., -1, -2].mean()), rel=1e-4)


def test_attention_of_a_first_token_that_only_one_other_sees_is_that_ones() -> None:
    model = uniform(tiny_model())
    assert found_attention(model, TOKENS[:, :2])[0] == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_computes_attention_afterwards_as_before(kind: str) -> None:
    model = tiny_model(kind)
    before, logits = model.config._attn_implementation, model(TOKENS).logits
    found_attention(model)
    assert model.config._attn_implementation == before
    assert torch.equal(model(TOKENS).logits, logits)


def test_the_model_computes_attention_as_before_after_a_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(RuntimeError, match="no"):
        received_attention(model, TOKENS)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_keeps_its_attention_to_itself_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    monkeypatch.setattr(model, "forward", lambda *_, **__: {"attentions": None})
    assert features.received_attention(model, TOKENS) == "LlamaForCausalLM does not give its attention weights"
