"""The hand-written decoder: against PyTorch's own layers, and with faults that its checks must find."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from inferometer.device import Device
from inferometer.fundamentals import decoder as module
from inferometer.fundamentals.checks import CHECKS, FIXED_LENGTHS, RANDOM_PROMPTS, TOLERANCE, check, prompts
from inferometer.fundamentals.decoder import Cache, Decoder, Layer, Past, Shape, causal_mask, generate, pick
from inferometer.fundamentals.measured_decoder import new_decoder
from inferometer.fundamentals.seeded import seeded

SHAPE = Shape(vocabulary=37, width=16, hidden=24, layers=2, context=40)
DECODER = seeded(lambda: Decoder(SHAPE), 3).eval()
CPU = Device("cpu", "a processor")


def some_tokens(count: int, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randint(SHAPE.vocabulary, (batch, count), generator=torch.Generator().manual_seed(seed))


def of_torch(layer: Layer) -> nn.TransformerEncoderLayer:
    """PyTorch's own pre-norm layer with the same weights."""
    theirs = nn.TransformerEncoderLayer(
        SHAPE.width, nhead=1, dim_feedforward=SHAPE.hidden, dropout=0.0, norm_first=True, batch_first=True
    )
    attention = layer.attention
    first, _, second = layer.feed_forward
    projections = torch.cat([attention.query.weight, attention.key.weight, attention.value.weight])
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": projections,
            "self_attn.in_proj_bias": torch.zeros(3 * SHAPE.width),
            **{f"self_attn.out_proj.{name}": value for name, value in attention.output.state_dict().items()},
            **{f"norm1.{name}": value for name, value in layer.attention_norm.state_dict().items()},
            **{f"norm2.{name}": value for name, value in layer.feed_forward_norm.state_dict().items()},
            **{f"linear1.{name}": value for name, value in first.state_dict().items()},
            **{f"linear2.{name}": value for name, value in second.state_dict().items()},
        }
    )
    return theirs


def test_logits_are_those_of_pytorchs_own_layers() -> None:
    tokens = some_tokens(17, batch=3)
    states = DECODER.token(tokens) + DECODER.position(torch.arange(17))
    for layer in DECODER.layers:
        assert isinstance(layer, Layer)
        states = of_torch(layer)(states, src_mask=nn.Transformer.generate_square_subsequent_mask(17), is_causal=True)
    torch.testing.assert_close(DECODER(tokens)[0], DECODER.head(DECODER.norm(states)), rtol=1e-5, atol=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=30)
def test_however_a_prompt_is_cut_into_passes_its_logits_are_the_same(lengths: list[int], seed: int) -> None:
    tokens = some_tokens(sum(lengths), batch=2, seed=seed)
    logits, cache = [], None
    for part in tokens.split(lengths, dim=1):
        some, cache = DECODER(part, cache)
        logits.append(some)
    assert cache is not None
    assert [past.tokens for past in cache] == [sum(lengths)] * SHAPE.layers
    torch.testing.assert_close(torch.cat(logits, dim=1), DECODER(tokens)[0], rtol=1e-5, atol=1e-5)


def test_two_futures_may_share_one_past() -> None:
    _, cache = DECODER(some_tokens(5))
    before = [past.keys.clone() for past in cache]
    one, _ = DECODER(some_tokens(2, seed=1), cache)
    DECODER(some_tokens(3, seed=2), cache)
    again, _ = DECODER(some_tokens(2, seed=1), cache)
    assert torch.equal(one, again)
    assert all(torch.equal(past.keys, keys) for past, keys in zip(cache, before, strict=True))


def test_the_mask_hides_exactly_the_keys_that_lie_ahead() -> None:
    mask = causal_mask(5)
    for query, key in itertools.product(range(5), repeat=2):
        assert mask[query, key] == (-torch.inf if key > query else 0)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_same_is_written_with_and_without_the_cache(temperature: float) -> None:
    for seed in range(5):
        prompt = some_tokens(4, batch=2, seed=seed)
        written = [
            generate(
                DECODER,
                prompt,
                20,
                temperature=temperature,
                use_cache=use_cache,
                generator=torch.Generator().manual_seed(seed),
            )
            for use_cache in (True, False)
        ]
        assert torch.equal(*written)
        assert written[0].shape == (2, 24)
        assert torch.equal(written[0][:, :4], prompt)


def test_with_the_cache_every_step_after_the_first_feeds_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    fed, embed = [], Decoder.embed

    def noting(self: Decoder, tokens: Tensor, first: int = 0) -> Tensor:
        fed.append((first, tokens.shape[1]))
        return embed(self, tokens, first)

    monkeypatch.setattr(Decoder, "embed", noting)
    generate(DECODER, some_tokens(3), 3)
    assert fed == [(0, 3), (3, 1), (4, 1)]
    fed.clear()
    generate(DECODER, some_tokens(3), 3, use_cache=False)
    assert fed == [(0, 3), (0, 4), (0, 5)]


def test_tokens_are_picked_as_often_as_softmax_says() -> None:
    logits, temperature = torch.tensor([2.0, 1.0, 0.0, -3.0]), 0.8
    generator = torch.Generator().manual_seed(0)
    picked = pick(logits.expand(20_000, 4), temperature, generator)
    shares = torch.bincount(picked.flatten(), minlength=4) / len(picked)
    torch.testing.assert_close(shares, (logits / temperature).softmax(dim=-1), rtol=0, atol=0.015)
    assert pick(logits.expand(3, 4), 0).tolist() == [[0], [0], [0]]


def test_a_text_longer_than_the_context_is_refused_with_and_without_a_cache() -> None:
    assert generate(DECODER, some_tokens(SHAPE.context - 1), 2).shape[1] == SHAPE.context + 1  # the last is never read
    for use_cache in (True, False):
        with pytest.raises(ValueError, match=r"41 tokens do not fit a context of 40"):
            generate(DECODER, some_tokens(SHAPE.context - 1), 3, use_cache=use_cache)


# --- the checks --------------------------------------------------------------------------------------------------


def failures(decoder: Decoder) -> set[str]:
    """Checks that fail on a prompt of some length."""
    with torch.inference_mode():
        return {name for name, measure in CHECKS.items() if not measure(decoder, some_tokens(12)) <= TOLERANCE}


def test_a_right_decoder_passes_all_checks_on_ten_fixed_and_ten_random_prompts() -> None:
    table = check(new_decoder(context=max(FIXED_LENGTHS)), CPU)
    assert table["holds"].all()
    assert table.groupby(["check", "kind"]).size().to_dict() == {
        (name, kind): 10 for name in CHECKS for kind in ("fixed", "random")
    }
    assert (table["difference"] < TOLERANCE / 10).all(), "the tolerance leaves room for other machines"
    assert failures(DECODER) == set()


def test_prompts_are_the_same_every_time_and_fit_the_vocabulary() -> None:
    once, twice = (list(prompts(7)) for _ in range(2))
    assert len(once) == len(FIXED_LENGTHS) + RANDOM_PROMPTS
    assert all(torch.equal(one.tokens, other.tokens) for one, other in zip(once, twice, strict=True))
    assert all(prompt.tokens.min() >= 0 and prompt.tokens.max() < 7 for prompt in once)


def leaking_mask(context: int) -> Tensor:
    """One token of the future is let through."""
    return torch.full((context, context), -torch.inf).triu(diagonal=2)


def narrow_mask(context: int) -> Tensor:
    """No position sees itself but the first."""
    mask = torch.full((context, context), -torch.inf).triu(diagonal=0)
    mask[0, 0] = 0
    return mask


def forgets_the_first(self: Past, keys: Tensor, values: Tensor) -> Past:
    return Past(torch.cat([self.keys[:, 1:], keys], dim=1), torch.cat([self.values[:, 1:], values], dim=1))


def mixes_up_values(self: Past, keys: Tensor, values: Tensor) -> Past:
    return Past(torch.cat([self.keys, keys], dim=1), torch.cat([values, self.values], dim=1))


def always_starts_at_zero(self: Decoder, tokens: Tensor, first: int = 0) -> Tensor:
    states: Tensor = self.token(tokens) + self.position.weight[: tokens.shape[1]]
    return states


@pytest.mark.parametrize(
    ("owner", "name", "fault", "found"),
    [
        (module, "causal_mask", leaking_mask, {"causality", "attention", "sequential", "cache"}),
        (module, "causal_mask", narrow_mask, {"attention"}),
        (Past, "followed_by", forgets_the_first, {"cache", "sequential"}),
        (Past, "followed_by", mixes_up_values, {"cache", "sequential"}),
        (Decoder, "embed", always_starts_at_zero, {"cache", "sequential"}),
        (math, "sqrt", lambda value: value, {"attention"}),
    ],
    ids=["leak", "narrow mask", "forgetful cache", "mixed-up cache", "positions from zero", "wrong scale"],
)
def test_every_planted_fault_is_found(
    owner: object, name: str, fault: Callable[..., object], found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = seeded(lambda: Decoder(SHAPE), 3)
    monkeypatch.setattr(owner, name, fault)
    decoder.mask = module.causal_mask(SHAPE.context)
    assert failures(decoder) >= found


def test_a_cache_that_is_handed_to_the_wrong_layer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Decoder.forward

    def swapped(self: Decoder, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        return forward(self, tokens, cache[::-1] if cache else None)

    monkeypatch.setattr(Decoder, "forward", swapped)
    assert {"cache", "sequential"} <= failures(DECODER)
