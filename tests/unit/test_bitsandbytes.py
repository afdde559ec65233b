"""The library's layers: their numbers, their bytes, their silence, and where they can't run."""

import logging
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from inferometer.models import weight_matrix
from inferometer.quantization import bitsandbytes_layers
from inferometer.quantization.bitsandbytes_layers import BitsandbytesLinear, Format, reason_not_available
from tests.tiny import tiny_model

CPU = torch.device("cpu")
# The code book of NF4: Dettmers et al. 2023, QLoRA, appendix E.
NF4_BELOW = (-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500)
NF4_ABOVE = (0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0)
NF4 = torch.tensor([*NF4_BELOW, 0.0, *NF4_ABOVE])


@pytest.fixture(autouse=True)
def _library_runs_here() -> None:
    if reason := reason_not_available(CPU):
        pytest.skip(reason)


def _values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _nf4_rounded(weight: Tensor) -> Tensor:
    """The oracle: the nearest value of the code book, in blocks of 64 along rows, scales not nested."""
    blocks = nn.functional.pad(weight, (0, -weight.shape[1] % 64)).unflatten(1, (-1, 64))
    absmax = blocks.abs().amax(dim=-1, keepdim=True)
    codes = (blocks[..., None] / absmax[..., None] - NF4).abs().argmin(dim=-1)
    rounded: Tensor = NF4[codes] * absmax
    return rounded.flatten(1)[:, : weight.shape[1]]


def _relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("shape", [(64, 128), (48, 96), (33, 70), (20, 32)])
@torch.no_grad()
def test_nf4_gives_the_values_of_its_code_book(shape: tuple[int, int]) -> None:
    weight = _values(*shape)
    layer = BitsandbytesLinear(weight, None, "nf4")
    effective = layer(torch.eye(shape[1])).T
    assert _relative(effective, _nf4_rounded(weight)) < 0.015  # nested scales and bfloat16 are rounded once more
    assert 0.05 < _relative(effective, weight) < 0.12


@pytest.mark.parametrize("shape", [(64, 128), (33, 70)])
@torch.no_grad()
def test_int8_takes_outliers_out_of_the_product(shape: tuple[int, int]) -> None:
    weight, values = _values(*shape), _values(9, shape[1], seed=1)
    values[:, 3] *= 100
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    rounded = (weight / scale).round() * scale
    layer = BitsandbytesLinear(weight, None, "llm_int8")
    expected = values.double() @ rounded.double().T
    assert _relative(layer(values), expected) < 0.01  # a plain INT8 row would lose all but its outlier
    plain = (values / (step := values.abs().amax(dim=1, keepdim=True) / 127)).round() * step
    assert _relative(plain.double() @ rounded.double().T, expected) > 0.01


@pytest.mark.parametrize("format", ["llm_int8", "nf4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 5), (0,), (2, 0)])
@torch.no_grad()
def test_inputs_of_any_shape_and_dtype_are_served(format: Format, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    weight, bias, values = _values(64, 96).to(dtype), _values(64, seed=2).to(dtype), _values(*shape, 96).to(dtype)
    output = BitsandbytesLinear(weight, bias, format)(values)
    expected = nn.functional.linear(values, weight, bias)
    assert output.dtype == dtype
    assert output.shape == expected.shape
    if values.numel():
        assert _relative(output, expected) < (0.02 if format == "llm_int8" else 0.15)


@torch.no_grad()
def test_bytes_hold_codes_and_all_that_reads_them() -> None:
    weight = _values(48, 128)
    assert BitsandbytesLinear(weight, None, "llm_int8").stored_bytes == 48 * 128 + 48 * 4
    blocks = 48 * 128 // 64
    nested = blocks + 4 + 4 + 16 * 4 + 256 * 4  # scales, their one scale, their offset, and both code books
    layer = BitsandbytesLinear(weight, None, "nf4")  # 48 outputs do not fit the library's layout for bfloat16
    assert layer.stored_bytes == 48 * 128 // 2 + nested
    assert layer.kernel == "bitsandbytes nf4 in float32"
    fitting = BitsandbytesLinear(_values(64, 128), None, "nf4")
    if fitting.kernel == "bitsandbytes nf4 in bfloat16":
        blocks = 64 * 128 // 64
        assert fitting.stored_bytes - 64 * 128 // 2 - 2 * blocks in (64, 68)  # the code book, and an unused offset


@torch.no_grad()
def test_the_float_layer_is_left_alone_and_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    linear, values = nn.Linear(64, 64), _values(3, 64)
    before = linear.weight.clone()
    with caplog.at_level(logging.WARNING):
        for format in ("llm_int8", "nf4"):
            BitsandbytesLinear(linear.weight, linear.bias, format)(values)
    assert torch.equal(linear.weight, before)
    assert not caplog.records


@pytest.mark.parametrize("format", ["llm_int8", "nf4"])
@torch.no_grad()
def test_a_model_computes_with_layers_of_the_library(format: Format) -> None:
    for kind in ("llama", "gpt2"):
        model, tokens = tiny_model(kind, outliers=False), torch.arange(16)[None]
        expected = model(tokens).logits
        own = {name: module for name, module in model.named_modules() if name.endswith(("mlp.up_proj", "mlp.c_fc"))}
        for name, layer in own.items():
            model.set_submodule(name, BitsandbytesLinear(weight_matrix(layer), layer.bias, format))
        assert own
        assert 0 < _relative(model(tokens).logits, expected) < 0.05


def test_a_device_without_the_library_says_why() -> None:
    reason = reason_not_available(torch.device("meta"))
    assert reason
    assert reason.startswith("The library bitsandbytes does not run on meta here: ")


def test_a_missing_library_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'bitsandbytes'")

    monkeypatch.setattr(bitsandbytes_layers, "_library", missing)
    reason_not_available.cache_clear()
    try:
        assert "No module named 'bitsandbytes'" in str(reason_not_available(CPU))
    finally:
        reason_not_available.cache_clear()


def test_the_library_is_not_imported_before_a_layer_is_built() -> None:
    check = "import sys, inferometer.quantization.bitsandbytes_layers; sys.exit('bitsandbytes' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
