"""Packed KV caches on CUDA: the same codes as on a CPU, and text written with them."""

from typing import Any

import pytest
import torch

from inferometer.device import choose_device
from inferometer.held import held_bytes
from inferometer.kv_cache.cache import PackedCache, Packing
from inferometer.kv_cache.packing import WIDTHS
from inferometer.kv_cache.policies import Policy
from inferometer.kv_cache.session import Session, follow, read_context
from inferometer.kv_cache.speed import measure
from inferometer.kv_cache.states import Order, PackedStates
from inferometer.timing import Enough
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")

ENTROPY = {"feature": "entropy", "widths": [2, 4, 8], "average_bits": 4, "group_size": 8}


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_both_devices_store_the_same(bits: int, per_channel: bool, dtype: torch.dtype) -> None:
    values = torch.randn(2, 3, 16, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = []
    for device in ("cpu", "cuda"):
        own = values.to(device)
        store, order, out = PackedStates(8, per_channel=per_channel), Order(), torch.empty_like(own)
        store.append(own, [(bits, 8), (8, 8)])
        order.extend([(bits, 8), (8, 8)], own.device)
        store.write_to(out, order)
        found.append(out.cpu())
    assert torch.allclose(found[0], found[1], atol=1e-6)


def test_a_model_writes_with_a_packed_cache() -> None:
    device = choose_device("cuda")
    model = tiny_model().to(device.torch_device)  # type: ignore[arg-type]
    tokens = torch.randint(2, 64, (1, 40), device=device.torch_device)
    cache = PackedCache(model.config, Packing(bits=4, group_size=8))
    ways: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    written = model.generate(tokens, past_key_values=cache, **ways)
    assert written.shape[1] <= 48
    assert held_bytes(cache) > 0
    session, context = Session(model, Policy.of("entropy", ENTROPY)), read_context(model, tokens[:, :20], {"entropy"})
    session.fill(context)
    assert sum(map(len, follow(model, session, tokens[:, 20:], context.logits, 8))) == 20


def test_caches_are_timed_and_weighed() -> None:
    device = choose_device("cuda")
    model = tiny_model().to(device.torch_device)  # type: ignore[arg-type]
    policies = [
        Policy.of("float", {}),
        Policy.of("static-4", {"bits": 4, "group_size": 8}),
        Policy.of("entropy", ENTROPY),
    ]
    prompt = torch.randint(2, 64, (1, 32), device=device.torch_device)
    for latency, memory in measure(model, policies, prompt, Enough(2), device).values():
        assert all(row["wall_ms"] > 0 for row in latency)
        assert memory[0]["peak_bytes"] > 0
