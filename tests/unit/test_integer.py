"""Layers on integer codes: the same codes as the simulated layers, the same outputs, and what can't be served.

Layers that multiply rounded values as floats are the oracle of every product; what schemes simulate on codes is the
same to the last bit.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from inferometer.errors import InferometerError
from inferometer.models import Linear, weight_matrix
from inferometer.quantization import integer, kernels
from inferometer.quantization.floats import FloatGrid
from inferometer.quantization.grids import Grid, IntegerGrid, Parameters
from inferometer.quantization.integer import (
    ActivationCoder,
    IntegerLinear,
    PackedLinear,
    integer_layer,
    packed_nibbles,
    unpacked_nibbles,
)
from inferometer.quantization.kernels import FALLBACK, exact_kernels
from inferometer.quantization.simulated import ActivationRounder, SimulatedIntegerLinear, SimulatedLinear

CPU = torch.device("cpu")
PER_TOKEN, PER_CHANNEL = IntegerGrid("per_token"), IntegerGrid("per_channel")
SHAPES = [(), (1,), (7,), (300,), (2, 5), (0,), (2, 0)]
ACTIVATIONS = [
    PER_TOKEN,
    IntegerGrid("per_token", bits=4),
    IntegerGrid("per_token", symmetric=False),
    IntegerGrid("per_token", bits=3, symmetric=False),
    IntegerGrid("per_token", clip="mse"),
    IntegerGrid("per_token", clip="percentile", percentile=99.0),
]


def _values(*shape: int, seed: int = 0) -> Tensor:
    """Rows of very different sizes, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * 10 ** torch.randn(*shape[:-1], 1, generator=generator)


def _layer(kind: type[Linear], outputs: int, inputs: int, *, bias: bool = True) -> Linear:
    torch.manual_seed(1)
    layer = Conv1D(outputs, inputs) if kind is Conv1D else nn.Linear(inputs, outputs, bias=bias)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer.requires_grad_(False)


def _simulated(layer: Linear, weights: Grid, activations: Grid | None) -> SimulatedLinear:
    rounder = ActivationRounder(activations) if activations else None
    return SimulatedLinear(weights.round_trip(weight_matrix(layer)), layer.bias, rounder)


def _on_codes(layer: Linear, weights: Grid, coder: ActivationCoder) -> SimulatedIntegerLinear:
    return SimulatedIntegerLinear(weights.quantized(weight_matrix(layer)), layer.bias, coder, layer.weight.dtype)


def _served(layer: Linear, weights: Grid, activations: Grid | None) -> IntegerLinear | PackedLinear:
    coder = ActivationCoder(activations) if activations else None
    return integer_layer(weights.quantized(weight_matrix(layer)), layer.bias, coder, layer.weight.dtype)


def _assert_agree(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Within a share of the largest value of the row, which is what rounding of sums is relative to."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if expected.numel():
        size = expected.float().abs().amax(dim=-1, keepdim=True)
        assert ((actual.float() - expected.float()).abs() <= tolerance * size).all()


@pytest.mark.parametrize("grid", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("piece_values", [None, 1, 100])
def test_codes_are_those_of_the_simulated_grid(grid: IntegerGrid, dtype: torch.dtype, piece_values: int | None) -> None:
    values = _values(3, 5, 33).to(dtype)
    rows, expected = ActivationCoder(grid)(values, piece_values), grid.quantized(values)
    middle = 0 if grid.symmetric else 2 ** (grid.bits - 1)
    assert rows.codes.dtype == torch.int8
    assert torch.equal(rows.codes.float() + middle, expected.codes.flatten(end_dim=-2))
    assert torch.equal(rows.scales, expected.parameters.scale.reshape(-1, 1))
    if expected.parameters.zero_point is not None:
        assert rows.shift is not None
        assert torch.equal(middle - rows.shift, expected.parameters.zero_point.reshape(-1, 1))


def test_ties_go_to_even_codes() -> None:
    values = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]])
    assert ActivationCoder(PER_TOKEN)(values, None).codes.tolist() == [[127, 0, 2, 2, 0, -2]]


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize("activations", ACTIVATIONS, ids=str)
@pytest.mark.parametrize(
    "weights", [IntegerGrid(g, bits=b) for g in ("per_channel", "per_tensor") for b in (4, 8)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_integer_layers_agree_with_simulated_ones(
    kind: type[Linear], activations: Grid, weights: Grid, dtype: torch.dtype
) -> None:
    layer, values = _layer(kind, 20, 33), _values(2, 5, 33).to(dtype)
    served = _served(layer.to(dtype), weights, activations)
    assert isinstance(served, IntegerLinear)
    # In bfloat16 the simulated layer rounds inputs and weights once more; the same values in float32 are the oracle.
    oracle = SimulatedLinear(weights.round_trip(weight_matrix(layer).float()), layer.bias.float(), None)
    expected = oracle(activations.round_trip(values.float()))
    _assert_agree(served(values), expected.to(dtype), 1e-5 if dtype == torch.float32 else 2**-7)
    if dtype == torch.float32:
        _assert_agree(served(values), _simulated(layer, weights, activations)(values))
    assert torch.equal(served(values), _on_codes(layer, weights, ActivationCoder(activations))(values))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activations", [PER_TOKEN, None])
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_of_any_shape_are_served(shape: tuple[int, ...], activations: Grid | None, bias: bool) -> None:
    layer, values = _layer(nn.Linear, 20, 33, bias=bias), _values(*shape, 33)
    served = _served(layer, PER_CHANNEL, activations)(values)
    _assert_agree(served, _simulated(layer, PER_CHANNEL, activations)(values))
    if activations:
        assert torch.equal(served, _on_codes(layer, PER_CHANNEL, ActivationCoder(activations))(values))


@given(outputs=st.integers(1, 150), inputs=st.integers(1, 150), rows=st.integers(1, 5), symmetric=st.booleans())
@settings(max_examples=25)
def test_layers_of_any_shape_agree(outputs: int, inputs: int, rows: int, symmetric: bool) -> None:
    layer, values = _layer(nn.Linear, outputs, inputs), _values(rows, inputs)
    activations = replace(PER_TOKEN, symmetric=symmetric)
    with pytest.MonkeyPatch.context() as patch:  # the first exact kernel, as timing each shape takes long
        patch.setattr(integer, "fastest_kernel", lambda *_: exact_kernels(CPU)[0])
        served = _served(layer, PER_CHANNEL, activations)
    _assert_agree(served(values), _simulated(layer, PER_CHANNEL, activations)(values))
    assert torch.equal(served(values), _on_codes(layer, PER_CHANNEL, ActivationCoder(activations))(values))
    int4 = IntegerGrid("per_channel", bits=4, symmetric=symmetric)
    _assert_agree(_served(layer, int4, None)(values), _simulated(layer, int4, None)(values))


@pytest.mark.parametrize("kernel", [*exact_kernels(CPU), FALLBACK], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("activations", [PER_TOKEN, IntegerGrid("per_token", symmetric=False)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kernel_serves_products_in_pieces(
    kernel: kernels.Kernel, activations: Grid, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, values = _layer(nn.Linear, 24, 40), _values(300, 40).to(dtype)
    monkeypatch.setattr(integer, "fastest_kernel", lambda *_: replace(kernel, cached_values=100))
    served = _served(layer, PER_CHANNEL, activations)
    assert isinstance(served, IntegerLinear)
    assert served.kernel == kernel.name
    expected = _simulated(layer, PER_CHANNEL, activations)(values.float())
    _assert_agree(served(values).float(), expected, 1e-5 if dtype == torch.float32 else 2**-7)
    assert torch.equal(served(values), _on_codes(layer, PER_CHANNEL, ActivationCoder(activations))(values))


@pytest.mark.parametrize("kernel", [*exact_kernels(CPU), FALLBACK], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize("symmetric", [True, False])
def test_wide_layers_agree_with_simulated_codes_to_the_last_bit(
    kernel: kernels.Kernel, kind: type[Linear], symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, values = _layer(kind, 48, 4864), _values(40, 4864)  # as wide as the down_proj of Qwen2.5-0.5B
    values[:, 7] *= 50
    monkeypatch.setattr(integer, "fastest_kernel", lambda *_: kernel)
    activations = replace(PER_TOKEN, symmetric=symmetric)
    served = _served(layer, PER_CHANNEL, activations)(values)
    assert torch.equal(served, _on_codes(layer, PER_CHANNEL, ActivationCoder(activations))(values))
    if symmetric:
        _assert_agree(served, _simulated(layer, PER_CHANNEL, activations)(values))


def test_sums_beyond_the_digits_of_a_float_differ_in_the_last_bit_alone() -> None:
    layer, values = _layer(nn.Linear, 20, 4864), torch.full((3, 4864), 2.0)
    layer.weight.fill_(1.0)
    layer.weight[:, ::1000] = 0.99  # a sum of 127 · 127 · 4864 is above 2^26
    served = _served(layer, PER_CHANNEL, PER_TOKEN)(values)
    exact = nn.functional.linear(values.double(), PER_CHANNEL.round_trip(layer.weight).double(), layer.bias.double())
    for found in (served, _on_codes(layer, PER_CHANNEL, ActivationCoder(PER_TOKEN))(values)):
        torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


def test_static_ranges_serve_all_rows_with_one_scale() -> None:
    for symmetric in (True, False):
        grid = IntegerGrid("per_tensor", symmetric=symmetric)
        static = grid.parameters(_values(50, 33, seed=3).reshape(1, -1))
        layer, values = _layer(nn.Linear, 20, 33), _values(7, 33)
        coder = ActivationCoder(grid, static)
        served = integer_layer(PER_CHANNEL.quantized(layer.weight), layer.bias, coder, torch.float32)
        rounder = ActivationRounder(grid, static)
        expected = SimulatedLinear(PER_CHANNEL.round_trip(layer.weight), layer.bias, rounder)
        _assert_agree(served(values), expected(values))
        assert torch.equal(served(values), _on_codes(layer, PER_CHANNEL, coder)(values))


def test_layers_that_read_one_tensor_share_its_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    coder, values = ActivationCoder(PER_TOKEN), _values(4, 8)
    first = coder(values, None)
    assert coder(values, None) is first
    assert coder(values.clone(), None) is not first
    for seed in range(50):  # each tensor is freed at once, so the allocator hands out the same memory again
        fresh = _values(4, 8, seed=seed)
        assert torch.equal(coder(fresh, None).codes, PER_TOKEN.quantized(fresh).codes.to(torch.int8))
        del fresh


PACKED = [
    IntegerGrid(granularity, size, bits=bits, symmetric=symmetric)  # type: ignore[arg-type]
    for granularity, size in (("per_channel", None), ("per_tensor", None), ("per_group", 32), ("per_group", 64))
    for bits in (4, 8)
    for symmetric in (True, False)
]


@pytest.mark.parametrize("grid", PACKED, ids=str)
@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize("outputs", [20, 64, 33])
def test_packed_layers_agree_with_simulated_ones(grid: IntegerGrid, kind: type[Linear], outputs: int) -> None:
    layer, values = _layer(kind, outputs, 64), _values(2, 5, 64)
    served = _served(layer, grid, None)
    assert isinstance(served, PackedLinear)
    assert torch.equal(served.weight(torch.float32), grid.round_trip(weight_matrix(layer)))
    # Libraries may sum in another order where a weight lies transposed in memory.
    torch.testing.assert_close(served(values), _simulated(layer, grid, None)(values), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grid", PACKED, ids=str)
@pytest.mark.parametrize("rows", [1, 16, 17])
def test_packed_layers_serve_bfloat16(grid: IntegerGrid, rows: int) -> None:
    layer, values = _layer(nn.Linear, 64, 64), _values(rows, 64).bfloat16()
    served = _served(layer.bfloat16(), grid, None)
    assert isinstance(served, PackedLinear)
    assert torch.equal(served.weight(torch.bfloat16), grid.round_trip(layer.weight))
    exact = nn.functional.linear(values.double(), grid.round_trip(layer.weight.float()).double(), layer.bias.double())
    _assert_agree(served(values), exact.bfloat16(), 2**-6)


def test_bytes_are_those_of_the_tensors_held() -> None:
    layer = _layer(nn.Linear, 64, 128, bias=True)
    assert _served(layer, PER_CHANNEL, PER_TOKEN).stored_bytes == 64 * 128 + 64 * 4
    assert _served(layer, IntegerGrid("per_tensor"), PER_TOKEN).stored_bytes == 64 * 128 + 4
    assert _served(layer, IntegerGrid("per_channel", bits=4), None).stored_bytes == 64 * 128 // 2 + 64 * 4
    group = IntegerGrid("per_group", 32, bits=4)
    assert _served(layer, group, None).stored_bytes == 64 * 128 // 2 + 64 * 4 * 2
    assert _served(layer, group, None).stored_bytes == group.bytes_of(layer.weight.shape)
    asymmetric = IntegerGrid("per_group", 32, bits=4, symmetric=False)
    assert _served(layer, asymmetric, None).stored_bytes == 64 * 128 // 2 + 64 * 4 * (2 + 1)
    assert _served(layer, PER_CHANNEL, None).stored_bytes == 64 * 128 + 64 * 4


@given(outputs=st.sampled_from([2, 4, 64]), blocks=st.integers(1, 3), inputs=st.integers(1, 9))
def test_nibbles_come_back_as_they_were(outputs: int, blocks: int, inputs: int) -> None:
    codes = torch.randint(16, (outputs * blocks, inputs), dtype=torch.uint8)
    packed = packed_nibbles(codes, outputs)
    assert packed.nbytes * 2 == codes.nbytes
    assert torch.equal(unpacked_nibbles(packed), codes)


def test_a_native_product_that_is_wrong_or_absent_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for block in ("wrong", "absent"):
        integer.native_block.cache_clear()
        real = torch.ops.aten._weight_int4pack_mm_for_cpu

        def stand_in(*arguments: Any, block: str = block, real: Any = real) -> Tensor:
            if block == "absent":
                raise NotImplementedError
            wrong: Tensor = real(*arguments) + 1
            return wrong

        with monkeypatch.context() as patch:
            patch.setattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu", stand_in)
            assert integer.native_block(CPU) is None
            served = _served(_layer(nn.Linear, 64, 64).bfloat16(), IntegerGrid("per_channel", bits=4), None)
            assert served.kernel == "unpacked"
    integer.native_block.cache_clear()


def test_layers_keep_their_codes_when_a_model_is_cast_and_hold_no_float_weight() -> None:
    layer, values = _layer(nn.Linear, 20, 33, bias=False), _values(4, 33)
    served = _served(layer, PER_CHANNEL, PER_TOKEN)
    before = served(values)
    assert torch.equal(served.bfloat16()(values), before)
    assert not list(served.parameters())
    assert not list(served.buffers())


@pytest.mark.parametrize(
    ("weights", "activations", "said"),
    [
        (FloatGrid("per_channel"), PER_TOKEN, "no product for float formats"),
        (IntegerGrid("per_channel", bits=12), PER_TOKEN, "at most 8 bits"),
        (IntegerGrid("per_channel", symmetric=False), PER_TOKEN, "asymmetric"),
        (IntegerGrid("per_group", 16), PER_TOKEN, "per_group"),
        (IntegerGrid("per_channel", bits=5), None, "4 or 8 bits, not of 5"),
        (PER_CHANNEL, IntegerGrid("per_token", bits=9), "at most 8 bits"),
        (PER_CHANNEL, FloatGrid("per_token"), "integer grid"),
        (PER_CHANNEL, IntegerGrid("per_tensor"), "is neither"),
        (PER_CHANNEL, IntegerGrid("per_group", 16), "is neither"),
    ],
)
def test_what_cannot_be_served_says_why(weights: Grid, activations: Grid | None, said: str) -> None:
    with pytest.raises(InferometerError, match=said):
        _served(_layer(nn.Linear, 16, 16), weights, activations)
    with pytest.raises(InferometerError, match="is neither"):
        ActivationCoder(PER_TOKEN, Parameters(torch.ones(1, 1)))


@pytest.mark.parametrize("fault", ["codes", "scales", "shift"])
def test_a_planted_fault_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    activations = IntegerGrid("per_token", symmetric=False)
    layer, values = _layer(nn.Linear, 20, 33), _values(4, 33)
    served = _served(layer, PER_CHANNEL, activations)
    rows = ActivationCoder(activations)(values, None)
    wrong = replace(rows, **{fault: getattr(rows, fault) + (1 if fault != "scales" else 1e-3)})
    monkeypatch.setattr(served, "activations", lambda *_: wrong)
    with pytest.raises(AssertionError):
        _assert_agree(served(values), _simulated(layer, PER_CHANNEL, activations)(values))
