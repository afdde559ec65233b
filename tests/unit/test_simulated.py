"""Linear layers on rounded values or on codes: what they multiply, and the memory of the rounder."""

from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from inferometer.models import Linear, weight_matrix
from inferometer.quantization.floats import FloatGrid
from inferometer.quantization.grids import Grid, IntegerGrid
from inferometer.quantization.integer import ActivationCoder
from inferometer.quantization.simulated import ActivationRounder, SimulatedIntegerLinear, SimulatedLinear

PER_TOKEN = IntegerGrid("per_token")


def _codes(values: Tensor, bits: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The oracle: absmax codes of every row, and their steps, in numpy."""
    array: NDArray[np.float32] = values.float().numpy()
    absmax = np.maximum(np.abs(array).max(axis=-1, keepdims=True), np.float32(1e-5))
    step = absmax / np.float32(2 ** (bits - 1) - 1)
    return np.rint(array / step).astype(np.int64), step


def _rounded(values: Tensor, bits: int) -> Tensor:
    """The oracle: absmax rounding of every row."""
    codes, step = _codes(values, bits)
    return torch.from_numpy(codes.astype(np.float32) * step)


def _inputs(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _linear(kind: type[Linear], *, bias: bool = True) -> Linear:
    """A layer from 64 to 20 features with seeded weights."""
    torch.manual_seed(1)
    layer = Conv1D(20, 64) if kind is Conv1D else nn.Linear(64, 20, bias=bias)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def _outputs_by_inputs(layer: Linear) -> Tensor:
    weight = layer.weight.detach()
    return weight.T.contiguous() if isinstance(layer, Conv1D) else weight


def _simulated(layer: Linear, weights: Grid | None, activations: Grid | None) -> SimulatedLinear:
    """The layer with its weight and its inputs on grids, as a scheme has it."""
    weight = weight_matrix(layer)
    rounder = ActivationRounder(activations) if activations else None
    return SimulatedLinear(weights.round_trip(weight) if weights else weight, layer.bias, rounder)


def _on_codes(layer: Linear, weights: Grid, coder: ActivationCoder) -> SimulatedIntegerLinear:
    """The layer as a scheme that has an integer product has it."""
    return SimulatedIntegerLinear(weights.quantized(weight_matrix(layer)), layer.bias, coder, layer.weight.dtype)


def test_the_same_tensor_is_rounded_once_and_answered_from_memory() -> None:
    rounder = ActivationRounder(PER_TOKEN)
    values = _inputs(3, 6)
    first = rounder(values)
    assert rounder(values) is first
    other = values.clone()
    again = rounder(other)
    assert again is not first, "another tensor is rounded anew, even with the same values"
    assert torch.equal(again, first)
    assert rounder(other[:2]).shape == (2, 6), "not even a view of the same memory is the same tensor"
    different = rounder(2 * values + 1)
    assert torch.equal(different, PER_TOKEN.round_trip(2 * values + 1))
    assert torch.equal(rounder(values), first)


def test_the_remembered_tensor_can_not_be_mistaken_for_one_that_took_its_place_in_memory() -> None:
    rounder = ActivationRounder(PER_TOKEN)
    for seed in range(50):  # each tensor is freed at once, so the allocator hands out the same memory again
        values = _inputs(16, 16, seed=seed)
        assert torch.equal(rounder(values), PER_TOKEN.round_trip(values))
        del values


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_a_simulated_layer_multiplies_what_was_rounded_independently(kind: type[Linear], bits: int) -> None:
    layer, values = _linear(kind), _inputs(2, 5, 64)
    simulated = _simulated(layer, IntegerGrid("per_channel", bits=bits), IntegerGrid("per_token", bits=bits))
    weight, inputs = _rounded(_outputs_by_inputs(layer), bits), _rounded(values, bits)
    expected = nn.functional.linear(inputs, weight, layer.bias)
    torch.testing.assert_close(simulated(values), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(simulated.weight, weight)
    assert simulated(values).shape == (2, 5, 20)


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize(
    "grid",
    [
        IntegerGrid("per_group", 32, bits=4, clip="mse"),
        IntegerGrid("per_tensor", bits=6, symmetric=False, clip="percentile", percentile=99.0),
        FloatGrid("per_group", 32, "mxfp4"),
        FloatGrid("per_group", 16, "nvfp4"),
        FloatGrid("per_channel", format="fp8_e5m2"),
    ],
    ids=str,
)
@torch.no_grad()
def test_a_simulated_layer_takes_any_grid_for_weights_and_inputs(kind: type[Linear], grid: Grid) -> None:
    layer, values = _linear(kind), _inputs(2, 5, 64)
    weight, inputs = grid.round_trip(_outputs_by_inputs(layer)), grid.round_trip(values)
    expected = nn.functional.linear(inputs, weight, layer.bias)
    torch.testing.assert_close(_simulated(layer, grid, grid)(values), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@torch.no_grad()
def test_parts_without_a_grid_stay_float(kind: type[Linear]) -> None:
    layer, values = _linear(kind), _inputs(5, 64)
    torch.testing.assert_close(_simulated(layer, None, None)(values), layer(values))
    only_weights = _simulated(layer, IntegerGrid("per_channel", bits=4), None)
    weight = _rounded(_outputs_by_inputs(layer), 4)
    torch.testing.assert_close(only_weights(values), nn.functional.linear(values, weight, layer.bias))
    only_inputs = _simulated(layer, None, IntegerGrid("per_token", bits=4))
    torch.testing.assert_close(only_inputs(values), layer(_rounded(values, 4)))


@torch.no_grad()
def test_a_layer_without_bias_has_none_and_the_layer_itself_is_left_alone() -> None:
    layer, values = _linear(nn.Linear, bias=False), _inputs(5, 64)
    before = layer.weight.clone()
    simulated = _simulated(layer, IntegerGrid("per_channel", bits=4), None)
    assert "bias" not in dict(simulated.named_parameters())
    assert torch.equal(layer.weight, before)
    assert not torch.equal(simulated.weight, before)
    assert not simulated.weight.requires_grad
    assert not torch.equal(simulated(values), layer(values))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@torch.no_grad()
def test_the_simulated_product_is_that_of_integer_arithmetic(kind: type[Linear], bits: int, symmetric: bool) -> None:
    layer, values = _linear(kind), _inputs(32, 64) * 10.0 ** _inputs(32, 1, seed=3)
    weight_grid = IntegerGrid("per_channel", bits=bits, symmetric=symmetric)
    input_grid = IntegerGrid("per_token", bits=bits, symmetric=symmetric)
    stored, scales = [], []
    for grid, tensor in ((weight_grid, _outputs_by_inputs(layer)), (input_grid, values)):
        quantized = grid.quantized(tensor)
        codes = quantized.codes.to(torch.int8 if symmetric else torch.uint8)
        assert torch.equal(codes.float(), quantized.codes)
        zero = quantized.parameters.zero_point
        stored.append(codes.long() - (0 if zero is None else zero.long()))
        scales.append(quantized.parameters.scale.double())
    expected = (stored[1] @ stored[0].T).double() * scales[1] * scales[0].T + layer.bias.double()
    simulated = _simulated(layer, weight_grid, input_grid)(values)
    size = expected.abs().amax(dim=-1, keepdim=True)
    assert ((simulated.double() - expected).abs() <= 2e-6 * size).all()


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_codes_multiplied_as_floats_are_those_of_integer_arithmetic_to_the_last_bit(
    kind: type[Linear], bits: int, dtype: torch.dtype, bias: bool
) -> None:
    layer, values = _linear(kind).to(dtype), (_inputs(32, 64) * 10.0 ** _inputs(32, 1, seed=3)).to(dtype)
    if not bias:
        layer.register_parameter("bias", None)
    codes, steps = _codes(values, bits)
    weight, weight_steps = _codes(_outputs_by_inputs(layer), bits)
    scaled = torch.from_numpy((codes @ weight.T).astype(np.float32) * weight_steps.T)
    scales = torch.from_numpy(steps)
    # Whether torch rounds between the last scale and the bias depends on the processor, so it is asked to do it here.
    expected = torch.addcmul(layer.bias.float(), scaled, scales) if bias else scaled * scales
    simulated = _on_codes(
        layer, IntegerGrid("per_channel", bits=bits), ActivationCoder(IntegerGrid("per_token", bits=bits))
    )
    assert torch.equal(simulated(values), expected.to(dtype))
    assert torch.equal(simulated(values.reshape(2, 16, 64)), expected.to(dtype).reshape(2, 16, 20))
    assert torch.equal(simulated.weight, _rounded(_outputs_by_inputs(layer), bits).to(dtype))


@pytest.mark.parametrize("symmetric", [True, False])
@torch.no_grad()
def test_the_largest_codes_lose_nothing_in_products_of_fewer_bits(symmetric: bool) -> None:
    """At a width where the hardware's short factors are used: they must hold all codes of 8 bits."""
    values = torch.rand(64, 1536, generator=torch.Generator().manual_seed(2)) - (0.5 if symmetric else 0)
    layer = nn.Linear(1536, 576, bias=False)
    grid = IntegerGrid("per_token", symmetric=symmetric)
    coded, weight = grid.quantized(values), IntegerGrid("per_channel").quantized(layer.weight)
    assert coded.codes.max() == grid.codes[1]
    zero = coded.parameters.zero_point
    codes = coded.codes.double() if zero is None else coded.codes.double() - zero.double()
    expected = (codes @ weight.codes.double().T) * coded.parameters.scale.double() * weight.parameters.scale.double().T
    simulated = _on_codes(layer, IntegerGrid("per_channel"), ActivationCoder(grid))(values)
    assert (simulated.double() - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@torch.no_grad()
def test_codes_of_any_kind_multiplied_as_floats_give_the_product_of_rounded_values(
    granularity: Literal["per_channel", "per_tensor"], bits: int, symmetric: bool, static: bool
) -> None:
    layer, values = _linear(nn.Linear), _inputs(32, 64) + 1  # zero points off the middle
    grid = IntegerGrid("per_tensor" if static else "per_token", bits=bits, symmetric=symmetric)
    parameters = grid.parameters(_inputs(1, 64 * 8, seed=5) + 1) if static else None
    weights = IntegerGrid(granularity, bits=bits)
    simulated = _on_codes(layer, weights, ActivationCoder(grid, parameters))
    rounded = ActivationRounder(grid, parameters)(values)
    exact = rounded.double() @ weights.round_trip(layer.weight).double().T + layer.bias.double()
    # Relative to what terms may add up to, as the shift of asymmetric codes makes one that mostly cancels.
    size = rounded.abs().amax(dim=1, keepdim=True) * weights.round_trip(layer.weight).abs().sum(dim=1) + 1
    assert ((simulated(values).double() - exact).abs() <= 1e-6 * size).all()
    assert torch.equal(simulated.weight, weights.round_trip(layer.weight))


@torch.no_grad()
def test_codes_are_out_of_reach_of_casts_and_take_the_memory_of_the_float_weight() -> None:
    layer, values = _linear(nn.Linear).bfloat16(), _inputs(5, 64)
    simulated = _on_codes(layer, IntegerGrid("per_channel"), ActivationCoder(PER_TOKEN))
    weight, outputs = simulated.weight, simulated(values)
    assert list(dict(simulated.named_parameters())) == ["bias"]
    assert not list(simulated.buffers())
    assert weight.dtype == torch.bfloat16
    assert simulated._codes.nbytes == layer.weight.nbytes
    simulated.double()
    assert torch.equal(simulated(values), outputs)
    assert torch.equal(simulated.weight, weight)


@pytest.mark.parametrize("symmetric", [True, False])
def test_static_parameters_round_every_tensor_alike_and_clip_what_lies_beyond(symmetric: bool) -> None:
    grid = IntegerGrid("per_tensor", symmetric=symmetric)
    calibration = torch.linspace(-1, 3, 101)[None]
    rounder = ActivationRounder(grid, static=grid.parameters(calibration))
    assert torch.equal(rounder(calibration), grid.round_trip(calibration))
    values = torch.cat([calibration, torch.full((1, 101), 50.0), torch.full((1, 101), -50.0)])
    assert torch.equal(rounder(values)[:1], grid.round_trip(calibration)), "others in the tensor do not matter"
    last, first = rounder(values)[1:, 0].tolist()
    assert last == pytest.approx(3, abs=0.01)
    assert first == pytest.approx(-3 if symmetric else -1, abs=0.01)
    assert rounder(values.bfloat16()).dtype == torch.bfloat16
    assert rounder(values[:, None]).shape == (3, 1, 101)


def test_outlier_channels_stay_in_float_and_the_others_are_rounded_without_them() -> None:
    values = _inputs(2, 5, 8).clamp(-2, 2)
    values[0, 3, 2], values[1, 1, 6] = 6.0, -40.0
    rounder = ActivationRounder(PER_TOKEN, outlier_threshold=6.0)
    rounded = rounder(values)
    outliers = [2, 6]
    ordinary = [0, 1, 3, 4, 5, 7]
    assert torch.equal(rounded[..., outliers], values[..., outliers])
    assert torch.equal(rounded[..., ordinary], _rounded(values[..., ordinary], 8))
    assert (rounder.channels, rounder.outliers) == (8, 2)
    rounder(values.clone())
    assert (rounder.channels, rounder.outliers) == (16, 4)
