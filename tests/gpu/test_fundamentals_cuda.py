"""Both teaching experiments on CUDA. Skipped where there is no CUDA device."""

import pytest
import torch

from inferometer import timing
from inferometer.device import choose_device
from inferometer.fundamentals import checks, digits, latency
from inferometer.fundamentals.measured_decoder import new_decoder
from inferometer.fundamentals.quantized_linear import QuantLinear
from inferometer.fundamentals.seeded import seeded
from inferometer.sources.images import fetch_images

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_the_checks_hold_on_cuda() -> None:
    device = choose_device("cuda")
    table = checks.check(new_decoder(max(checks.FIXED_LENGTHS)).to(device.torch_device), device)
    assert table["holds"].all(), table.groupby("check")["difference"].max()
    assert set(table["device"]) == {"cuda"}


def test_layers_on_codes_compute_the_same_on_both_devices() -> None:
    linear = seeded(lambda: torch.nn.Linear(64, 10), 0)
    inputs = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    expected = QuantLinear(linear, 4)(inputs)
    torch.testing.assert_close(QuantLinear(linear.cuda(), 4)(inputs.cuda()).cpu(), expected, rtol=1e-5, atol=1e-5)


def test_digits_are_read_on_cuda() -> None:
    images = digits.Digits(**fetch_images("own", {"source": "scikit-learn"}))
    table = digits.measure(images, epochs=2, seeds=[0], bits=[8], device=choose_device("cuda"))
    assert (table["prediction"] == table["label"]).mean() > 0.85


def test_samples_say_that_they_are_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST_SAMPLE_S", 1e-4)
    device = choose_device("cuda")
    decoder = new_decoder(latency.context_for([2, 3])).to(device.torch_device)
    table = latency.measure(decoder, [2, 3], 2, device)
    assert set(table["device"]) == {"cuda"}
    assert (table["latency_ms"] > 0).all()
