"""Attention captured on CUDA: the same as on a CPU, and what transformers' own weights say."""

from typing import Any

import pytest
import torch

from inferometer.attention.capture import FIRST, capture
from inferometer.device import choose_device
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")

TOKENS = torch.randint(4, 64, (1, 48), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_both_devices_find_the_same(kind: str) -> None:
    device: Any = choose_device("cuda").torch_device
    model = tiny_model(kind, outliers=False)
    here = capture(model, TOKENS, cells=64)
    there = capture(model.to(device), TOKENS, cells=64)
    assert torch.allclose(here.logits, there.logits.cpu(), atol=1e-4)
    for layer, own in here.layers.items():
        other = there.layers[layer]
        assert own.map is not None
        assert other.map is not None
        assert torch.allclose(own.map, other.map, atol=1e-4)
        assert all(torch.allclose(own.first[k], other.first[k], atol=1e-4) for k in FIRST)
        assert torch.allclose(own.entropy, other.entropy, atol=1e-3)
        assert torch.allclose(own.received[:, :-1], other.received[:, :-1], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_transformers_own_weights(dtype: torch.dtype) -> None:
    device: Any = choose_device("cuda").torch_device
    model: Any = tiny_model("llama", outliers=False)
    model = model.to(device, dtype)
    found = capture(model, TOKENS, cells=64)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(TOKENS.to(device), output_attentions=True).attentions
    for layer, weights in enumerate(expected):
        own = found.layers[layer].map
        assert own is not None
        assert torch.allclose(own, weights[0].float().cpu(), atol=0.02)
