"""Packed caches: codes, grids, layers that transformers can use, and what they keep alive."""

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoConfig, Cache, DynamicCache, PreTrainedModel, QuantizedCache

from inferometer.errors import InferometerError
from inferometer.heads import Heads
from inferometer.held import held_bytes
from inferometer.kv_cache.cache import PackedCache, Packing, cached_layers
from inferometer.kv_cache.packing import PLANES, WIDTHS, coded, grid_of, packed, shares_of, unpacked
from inferometer.kv_cache.states import FLOAT, Order, PackedStates
from inferometer.kv_cache.theory import Kept, packed_bytes
from tests.tiny import tiny_model

LAYERS, KV_HEADS, CHANNELS = 3, 2, 8  # of the tiny Llama
TOKENS = 40


def states(tokens: int, *, seed: int = 0, batch: int = 1) -> Tensor:
    """Keys or values of a layer, one channel of which lies far from zero."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, KV_HEADS, tokens, CHANNELS, generator=generator)
    values[..., 3] += 20
    return values


def tokens_of(count: int, *, seed: int = 0, batch: int = 1) -> Tensor:
    """Any tokens."""
    return torch.randint(2, 64, (batch, count), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def read_in_steps(model: PreTrainedModel, cache: Cache, tokens: Tensor, step: int, **layout: Tensor) -> Tensor:
    """Logits of all tokens, read step by step."""
    return torch.cat(
        [model(part, past_key_values=cache, use_cache=True).logits for part in tokens.split(step, dim=1)], dim=1
    )


def round_trip(values: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """The formula of KIVI, written another way: one group along `axis`, in float64 from ends in float16."""
    low, high = values.min(axis, keepdims=True), values.max(axis, keepdims=True)
    zero_point = low.astype(np.float16)
    zero_point = np.where(zero_point > low, np.nextafter(zero_point, np.float16(-np.inf)), zero_point).astype(float)
    span = (high - zero_point).astype(np.float16)
    span = np.where(span < high - zero_point, np.nextafter(span, np.float16(np.inf)), span).astype(float)
    scale = span / (2**bits - 1)
    found: np.ndarray = zero_point + scale * np.rint((values - zero_point) / scale)
    return found


# Codes and grids


@given(st.sampled_from(WIDTHS), st.integers(1, 70), st.integers(0, 2**31))
def test_codes_come_back_from_their_planes(bits: int, count: int, seed: int) -> None:
    codes = torch.randint(2**bits, (2, 3, count), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    planes = packed(codes, bits)
    assert torch.equal(unpacked(planes, bits, count), codes)
    assert sum(plane.shape[-1] for plane in planes) == sum(-(-count * width // 8) for width in PLANES[bits])


@pytest.mark.parametrize("bits", WIDTHS)
def test_no_bit_of_a_byte_is_wasted(bits: int) -> None:
    planes = packed(torch.zeros(5, 64, dtype=torch.uint8), bits)
    assert sum(plane.nbytes for plane in planes) == 5 * 64 * bits // 8


@given(st.integers(0, 2**31), st.sampled_from(WIDTHS), st.booleans(), st.floats(1e-3, 1e3))
def test_no_value_comes_to_lie_outside_its_grid(seed: int, bits: int, per_channel: bool, size: float) -> None:
    values = states(16, seed=seed % 1000) * size
    grid = grid_of(values, 8, per_channel=per_channel)
    shares = shares_of(values, grid, 8, per_channel=per_channel)
    dim = -2 if per_channel else -1
    own = values.unflatten(dim, (-1, 8)) if per_channel else values.unflatten(-1, (-1, 8))
    assert bool((own >= grid.zero_point.float()).all())
    assert bool((own <= grid.zero_point.float() + grid.span.float() * (1 + 1e-6)).all())
    half_step = grid.span.float() / (2**bits - 1) / 2
    there = coded(shares, bits).float().reshape(own.shape) / (2**bits - 1) * grid.span.float() + grid.zero_point.float()
    assert bool(((there - own).abs() <= half_step * (1 + 1e-3) + 1e-6 * size).all())


@pytest.mark.parametrize(("bits", "per_channel"), [*itertools.product(WIDTHS, (False, True))])
def test_what_is_stored_is_what_the_formula_says(bits: int, per_channel: bool) -> None:
    values = states(16)
    store, order, out = PackedStates(8, per_channel=per_channel), Order(), torch.empty_like(values)
    store.append(values, [(bits, 16)])
    order.extend([(bits, 16)], values.device)
    store.write_to(out, order)
    groups = values.numpy().astype(float).reshape(1, KV_HEADS, 2, 8, CHANNELS)
    expected = round_trip(groups, bits, axis=3 if per_channel else 4).reshape(values.shape)
    assert np.abs(out.numpy() - expected).max() < 1e-5


def test_quanto_finds_the_same_codes_and_values() -> None:
    quanto = pytest.importorskip("optimum.quanto")
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(16, (1, KV_HEADS, 16, 64), generator=generator)
    codes[..., 0], codes[..., 1] = 0, 15  # each group reaches both ends
    values = codes * 0.25 - 3  # steps that both store exactly
    scale, shift = quanto.MaxOptimizer()(values, quanto.qint4, 0, 64)
    library = quanto.quantize_weight(values, quanto.qint4, 0, scale, shift, 64)
    store, order, out = PackedStates(64, per_channel=False), Order(), torch.empty(values.shape)
    store.append(values, [(4, 16)])
    order.extend([(4, 16)], values.device)
    store.write_to(out, order)
    assert torch.allclose(out, library.dequantize().reshape(values.shape), atol=1e-6)
    assert torch.allclose(out, values, atol=1e-6)


# Layers


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gpt2", "opt", "gpt_neox", "mixtral"])
def test_tokens_that_are_kept_in_float_change_nothing(kind: str) -> None:
    model, tokens = tiny_model(kind), tokens_of(TOKENS)
    expected = read_in_steps(model, DynamicCache(config=model.config), tokens, 7)
    ours = read_in_steps(model, PackedCache(model.config, Packing(bits=2, recent_tokens=TOKENS)), tokens, 7)
    assert torch.allclose(ours, expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("keys", ["per_token", "per_channel"])
def test_errors_shrink_with_bits_and_eight_write_what_float_writes(keys: str) -> None:
    model, prompt = tiny_model(), tokens_of(20)
    expected = read_in_steps(model, DynamicCache(config=model.config), prompt, 5)
    packing = {bits: Packing(bits=bits, keys=keys, group_size=8) for bits in WIDTHS}  # type: ignore[arg-type]
    errors = [
        float((read_in_steps(model, PackedCache(model.config, own), prompt, 5) - expected).abs().mean())
        for own in packing.values()
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 10
    written = [
        model.generate(prompt, past_key_values=cache, max_new_tokens=8, do_sample=False, pad_token_id=0)  # type: ignore[operator]
        for cache in (DynamicCache(config=model.config), PackedCache(model.config, packing[8]))
    ]
    assert torch.equal(written[0], written[1])


def test_reading_all_at_once_uses_nothing_that_is_stored_and_reading_in_two_steps_does() -> None:
    model, tokens = tiny_model(), tokens_of(TOKENS)
    float_logits = read_in_steps(model, DynamicCache(config=model.config), tokens, TOKENS)
    two_bits = Packing(bits=2, group_size=8)
    once = read_in_steps(model, PackedCache(model.config, two_bits), tokens, TOKENS)
    twice = read_in_steps(model, PackedCache(model.config, two_bits), tokens, TOKENS // 2)
    assert torch.allclose(once, float_logits, atol=1e-5)
    assert float((twice - float_logits)[:, TOKENS // 2 :].abs().max()) > 1e-2


def test_left_padding_is_ignored_in_a_batch() -> None:
    model, tokens = tiny_model(), tokens_of(24, batch=2)
    mask = torch.ones_like(tokens)
    mask[1, :8] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = PackedCache(model.config, Packing(bits=8, group_size=8))
    alone = PackedCache(model.config, Packing(bits=8, group_size=8))
    with torch.inference_mode():
        for stop in (16, 24):
            part = slice(stop - 16 if stop == 16 else 16, stop)
            logits = model(
                tokens[:, part],
                past_key_values=cache,
                use_cache=True,
                attention_mask=mask[:, :stop],
                position_ids=positions[:, part],
            ).logits
        expected = read_in_steps(model, alone, tokens[1:, 8:], 8)
    assert torch.allclose(logits[1, -1], expected[0, -1], atol=2e-2 * float(expected.abs().max()))


def test_beams_and_repeats_follow_their_sequences() -> None:
    model, tokens = tiny_model(), tokens_of(21, batch=2)
    cache = PackedCache(model.config, Packing(bits=4, group_size=8))
    read_in_steps(model, cache, tokens[:, :20], 10)
    straight = copy.deepcopy(cache)
    cache.reorder_cache(torch.LongTensor([1, 0]))
    swapped = read_in_steps(model, cache, tokens[:, 20:].flip(0), 1)
    assert torch.allclose(swapped.flip(0), read_in_steps(model, straight, tokens[:, 20:], 1), atol=1e-5)
    straight.batch_repeat_interleave(2)
    straight.batch_select_indices(torch.tensor([0, 3]))
    assert straight.get_seq_length() == 21
    ways: dict[str, Any] = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    in_float = PackedCache(model.config, Packing(bits=8, sink_tokens=TOKENS, group_size=8))
    beams = model.generate(tokens[:1, :12], past_key_values=in_float, **ways)  # type: ignore[operator]
    expected = model.generate(tokens[:1, :12], **ways)  # type: ignore[operator]
    assert torch.equal(beams, expected)


@pytest.mark.parametrize("kept", [3, 8, 13, 16, 20])
@pytest.mark.parametrize("said", [False, True])
def test_a_cropped_cache_goes_on_as_if_the_rest_had_never_come(kept: int, said: bool) -> None:
    model, tokens = tiny_model(), tokens_of(30)
    packing = Packing(bits=None if said else 8, group_size=8)

    def filled(count: int) -> PackedCache:
        cache = PackedCache(model.config, packing)
        read_in_steps(model, cache, tokens[:, :count], count)
        if said:
            cache.write([8, 4] * (count // 2) + [8] * (count % 2))
        return cache

    cache, expected = filled(20), filled(kept)
    cache.crop(kept - 20)
    assert cache.get_seq_length() == kept
    if said:
        assert cache.said_bits == expected.said_bits
    ours, theirs = (read_in_steps(model, own, tokens[:, 20:], 5) for own in (cache, expected))
    assert torch.allclose(ours, theirs, atol=0.1 * float(theirs.abs().max()))


def test_storage_grows_and_nothing_is_written_over() -> None:
    order, store = Order(), PackedStates(8, per_channel=False)
    parts = [states(count, seed=count) for count in (1, 7, 8, 9, 30)]
    for part in parts:
        store.append(part, [(8, part.shape[2])])
        order.extend([(8, part.shape[2])], part.device)
    whole = torch.cat(parts, dim=2)
    out = torch.empty_like(whole)
    store.write_to(out, order)
    assert float((out - whole).abs().max()) < 25 / 255


# Bits that are said token by token


@given(st.lists(st.sampled_from([FLOAT, *WIDTHS]), min_size=1, max_size=40), st.booleans(), st.integers(1, 9))
def test_tokens_keep_their_places_whatever_their_bits(bits: list[int], per_channel: bool, piece: int) -> None:
    count = len(bits)
    values = states(count)
    config = AutoConfig.for_model("llama", num_hidden_layers=1, num_attention_heads=2, hidden_size=16)
    packing = Packing(keys="per_channel" if per_channel else "per_token", group_size=8)
    cache = PackedCache(config, packing)
    for start in range(0, count, piece):
        cache.update(values[:, :, start : start + piece], values[:, :, start : start + piece], 0)
        cache.write(bits[start : start + piece])
    assert cache.said_bits == bits
    new = states(1, seed=9)
    keys, held = cache.update(new, new, 0)
    for seen in (keys, held):
        assert torch.equal(seen[:, :, count:], new)
        for place, width in enumerate(bits):
            error = float((seen[:, :, place] - values[:, :, place]).abs().max())
            assert error <= (0 if width == FLOAT else 30 / (2**width - 1))


@pytest.mark.parametrize("per_channel", [False, True])
def test_tokens_of_mixed_widths_lie_where_their_own_width_alone_would_have_put_them(per_channel: bool) -> None:
    values = states(16)

    def stored(runs: list[tuple[int, int]]) -> Tensor:
        order, store, out = Order(), PackedStates(8, per_channel=per_channel), torch.empty_like(values)
        store.append(values, runs)
        order.extend(runs, values.device)
        store.write_to(out, order)
        return out

    runs = [(2, 3), (8, 2), (3, 4), (2, 1), (4, 6)]
    mixed, start = stored(runs), 0
    for bits, count in runs:
        place = slice(start, start + count)
        assert torch.allclose(mixed[:, :, place], stored([(bits, 16)])[:, :, place], atol=1e-5)
        start += count


def test_demoted_tokens_lie_where_their_own_bits_would_have_put_them() -> None:
    config = AutoConfig.for_model("llama", num_hidden_layers=1, num_attention_heads=2, hidden_size=16)
    values = states(16)
    seen = []
    for said, demoted in (([8] * 16, 10), ([2] * 10 + [8] * 6, 0)):
        cache = PackedCache(config, Packing(group_size=8))
        cache.update(values, values, 0)
        cache.write(said)
        cache.demote_oldest(demoted, 8, 2)
        assert cache.said_bits == [2] * 10 + [8] * 6
        seen.append(cache.update(states(1), states(1), 0))
    for twice, once in zip(*seen, strict=True):
        differing = (twice != once).float().mean()
        assert float((twice - once)[:, :, 10:].abs().max()) == 0
        assert float(differing) < 0.01  # of those, a value lay halfway between two codes


# Bytes


@pytest.mark.parametrize(("bits", "keys"), [*itertools.product(WIDTHS, ("per_token", "per_channel"))])
@pytest.mark.parametrize("tokens", [8, 19, 40])
def test_storage_takes_the_bytes_of_theory_and_some_room(bits: int, keys: str, tokens: int) -> None:
    model = tiny_model()
    cache = PackedCache(model.config, Packing(bits=bits, keys=keys, group_size=8))  # type: ignore[arg-type]
    read_in_steps(model, cache, tokens_of(tokens), tokens)
    kept = Kept(LAYERS, Heads(4, KV_HEADS, CHANNELS), 4)
    predicted = packed_bytes(kept, tokens, bits, group_size=8, per_channel=keys == "per_channel")
    room = packed_bytes(kept, 8, bits, group_size=8, per_channel=False)  # at most 7 tokens of it
    assert predicted <= held_bytes(cache) <= predicted + room
    if tokens % 8 == 0:
        assert held_bytes(cache) == predicted


def test_all_that_a_cache_keeps_alive_is_counted() -> None:
    model, tokens = tiny_model(), tokens_of(30)
    dynamic = DynamicCache(config=model.config)
    read_in_steps(model, dynamic, tokens, 30)
    assert held_bytes(dynamic) == 30 * 2 * LAYERS * KV_HEADS * CHANNELS * 4
    cache = PackedCache(model.config, Packing(group_size=8))
    read_in_steps(model, cache, tokens, 30)
    waiting = held_bytes(cache)
    assert waiting >= 30 * 2 * LAYERS * KV_HEADS * CHANNELS * 4  # nothing is packed before its bits are said
    cache.write([2, 4] * 15)
    assert held_bytes(cache) < waiting / 2
    before = held_bytes(cache)
    vars(cache.packed_layers[0])["forgotten"] = [torch.zeros(1000)]
    assert held_bytes(cache) - before == 4000


def test_a_library_cache_is_taken_apart() -> None:
    pytest.importorskip("optimum.quanto")
    model = tiny_model()
    cache = QuantizedCache("quanto", model.config, nbits=4, q_group_size=8, residual_length=8)
    read_in_steps(model, cache, tokens_of(32), 32)
    numbers = 32 * 2 * LAYERS * KV_HEADS * CHANNELS
    assert held_bytes(cache) == numbers // 2 + 2 * 4 * numbers // 8  # codes, and float32 scale and shift of eight


# What can't be


def test_bits_that_no_layer_packs_are_refused() -> None:
    with pytest.raises(InferometerError, match="can't be packed on 5 bits; choose 2, 3, 4, 8"):
        Packing(bits=5)
    cache = PackedCache(tiny_model().config, Packing())
    with pytest.raises(InferometerError, match="can't be packed on 7 bits"):
        cache.write([7])
    with pytest.raises(InferometerError, match="the bits of 1 tokens were said, but only 0 wait"):
        cache.write([4])


def test_groups_that_do_not_divide_a_head_are_refused() -> None:
    model = tiny_model()
    with pytest.raises(InferometerError, match="groups of 3 do not divide the 8 channels"):
        read_in_steps(
            model, PackedCache(model.config, Packing(bits=4, keys="per_token", group_size=3)), tokens_of(4), 4
        )


def test_layers_that_keep_no_keys_and_offloading_are_refused() -> None:
    config = AutoConfig.for_model("qwen3_next", num_hidden_layers=4)
    with pytest.raises(InferometerError, match="layer 0 of the model is of type linear_attention"):
        cached_layers(config)
    with pytest.raises(InferometerError, match="can't be offloaded"):
        PackedCache(tiny_model().config, Packing(bits=4)).packed_layers[0].offload()
