"""Rounding to integer grids: the properties of a grid, and the arithmetic of the SmoothQuant reference bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from inferometer.models import Linear
from inferometer.quantization import ActivationRounder, Granularity, Grid, SimulatedLinear

BITS = st.integers(2, 16)
GRANULARITIES: tuple[Granularity, ...] = ("per_tensor", "per_channel", "per_token")
GRIDS = st.builds(Grid, BITS, st.sampled_from(GRANULARITIES))
ULP = 2.0**-22  # some rounding errors of float32, relative to the value

Floats = NDArray[np.float32]


def _matrices() -> st.SearchStrategy[Tensor]:
    """Float32 matrices with all kinds of magnitudes, zeros and whole rows of zeros among them."""
    shapes = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=8)
    ordinary = st.floats(-(2**14), 2**14, width=32) | st.floats(-(2**-12), 2**-12, width=32) | st.just(0.0)
    return hnp.arrays(np.float32, shapes, elements=ordinary, fill=st.just(0.0)).map(torch.from_numpy)


def reference_rounding(values: Floats, bits: int) -> Floats:
    """The oracle: absmax rounding row by row, as the SmoothQuant reference does it, in numpy."""
    largest = np.float32(2 ** (bits - 1) - 1)
    rounded = np.empty_like(values)
    for place in np.ndindex(values.shape[:-1]):
        absmax = max(np.abs(values[place]).max(), np.float32(1e-5))
        step = np.float32(absmax) / largest
        rounded[place] = np.rint(values[place] / step) * step
    return rounded


@settings(deadline=None)
@given(_matrices(), GRIDS)
def test_no_value_moves_by_more_than_half_a_step(values: Tensor, grid: Grid) -> None:
    step = grid.scale(values)
    distance = (grid.round_trip(values) - values).abs()
    assert (distance <= step / 2 + ULP * values.abs()).all()


@settings(deadline=None)
@given(_matrices(), GRIDS)
def test_codes_are_whole_numbers_within_the_range_of_the_bits(values: Tensor, grid: Grid) -> None:
    codes = grid.codes(values, grid.scale(values))
    assert grid.largest_code == 2 ** (grid.bits - 1) - 1
    assert torch.equal(codes, codes.round())
    assert codes.abs().max() <= grid.largest_code


@settings(deadline=None)
@given(_matrices(), GRIDS)
def test_rounding_again_changes_nothing(values: Tensor, grid: Grid) -> None:
    once = grid.round_trip(values)
    twice = grid.round_trip(once)
    assert torch.equal(grid.codes(values, grid.scale(values)), grid.codes(once, grid.scale(once)))
    torch.testing.assert_close(twice, once, rtol=ULP, atol=0)  # the step itself may move by its last bit


@settings(deadline=None)
@given(st.data(), BITS, st.integers(-10, 10))
def test_values_on_the_grid_stay_exactly_what_they_are(data: st.DataObject, bits: int, exponent: int) -> None:
    grid = Grid(bits, "per_token")
    codes = st.integers(-grid.largest_code, grid.largest_code)
    rows = data.draw(st.lists(st.lists(codes, min_size=3, max_size=3), min_size=1, max_size=4))
    values = torch.tensor([[*row, grid.largest_code] for row in rows], dtype=torch.float32) * 2.0**exponent
    assert torch.equal(grid.round_trip(values), values)


@settings(deadline=None)
@given(_matrices(), GRIDS)
def test_zero_stays_zero_and_signs_mirror(values: Tensor, grid: Grid) -> None:
    rounded = grid.round_trip(values)
    assert (rounded[values == 0] == 0).all()
    assert torch.equal(grid.round_trip(-values), -rounded)


@settings(deadline=None)
@given(_matrices(), GRIDS)
def test_the_input_is_left_untouched(values: Tensor, grid: Grid) -> None:
    before = values.clone()
    rounded = grid.round_trip(values)
    assert torch.equal(values, before)
    assert rounded.data_ptr() != values.data_ptr()


@settings(deadline=None)
@given(_matrices(), st.sampled_from([(2, 3), (3, 5), (4, 7), (2, 16)]))
def test_a_grid_that_holds_all_points_of_another_is_never_further_away(values: Tensor, bits: tuple[int, int]) -> None:
    coarse, fine = (Grid(number, "per_token") for number in bits)
    assert fine.largest_code % coarse.largest_code == 0, "every coarse point must also be a fine one"
    errors = [(grid.round_trip(values) - values).abs() for grid in (coarse, fine)]
    assert (errors[1] <= errors[0] + ULP * values.abs().amax(dim=-1, keepdim=True)).all()


def test_each_bit_halves_the_error_as_the_theory_of_uniform_rounding_says() -> None:
    values = torch.rand(200, 500, generator=torch.Generator().manual_seed(0)) * 2 - 1
    previous = float("inf")
    for bits in range(3, 13):
        grid = Grid(bits, "per_tensor")
        error = float((grid.round_trip(values) - values).double().square().mean().sqrt())
        assert error == pytest.approx(float(grid.scale(values)) / 12**0.5, rel=0.02)  # Widrow: step / sqrt(12)
        assert error < 0.6 * previous
        previous = error


@pytest.mark.parametrize(("granularity", "shape"), [("per_tensor", ()), ("per_channel", (4, 1)), ("per_token", (4, 1))])
def test_a_step_is_shared_by_what_the_granularity_says(granularity: Granularity, shape: tuple[int, ...]) -> None:
    values = torch.tensor([[1.0, -8.0, 2.0], [0.5, 0.25, -0.5], [0.0, 0.0, 0.0], [64.0, 1.0, 1.0]])
    scale = Grid(8, granularity).scale(values)
    assert scale.shape == shape
    largest = torch.tensor([64.0]) if not shape else torch.tensor([[8.0], [0.5], [1e-5], [64.0]])
    assert torch.equal(scale.flatten(), (largest / 127).flatten())


def test_every_token_of_a_batch_has_a_step_of_its_own() -> None:
    values = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    assert Grid(8, "per_token").scale(values).shape == (2, 5, 1)
    assert torch.equal(
        Grid(8, "per_token").round_trip(values),
        torch.stack([torch.stack([Grid(8, "per_tensor").round_trip(row) for row in item]) for item in values]),
    )


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_rows_of_zeros_stay_zero(bits: int, granularity: Granularity) -> None:
    rounded = Grid(bits, granularity).round_trip(torch.zeros(3, 5))
    assert torch.equal(rounded, torch.zeros(3, 5))


def test_halves_are_rounded_to_the_even_code() -> None:
    values = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 7.0]])
    assert Grid(4, "per_token").round_trip(values).tolist() == [[0.0, 2.0, 2.0, -0.0, -2.0, -2.0, 7.0]]


@settings(deadline=None, max_examples=300)
@given(_matrices(), BITS)
def test_weights_and_activations_are_rounded_as_in_the_smoothquant_reference_bit_for_bit(
    values: Tensor, bits: int
) -> None:
    expected = torch.from_numpy(reference_rounding(values.numpy(), bits))
    for granularity in ("per_channel", "per_token"):
        assert torch.equal(Grid(bits, granularity).round_trip(values), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [4, 8])
def test_half_precision_models_are_rounded_to_the_same_grid(dtype: torch.dtype, bits: int) -> None:
    values = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    rounded = Grid(bits, "per_token").round_trip(values)
    expected = reference_rounding(values.float().numpy(), bits)
    assert rounded.dtype == dtype
    assert torch.equal(rounded, torch.from_numpy(expected).to(dtype))


def _inputs(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_same_tensor_is_rounded_once_and_answered_from_memory() -> None:
    rounder = ActivationRounder(Grid(8, "per_token"))
    values = _inputs(3, 6)
    first = rounder(values)
    assert rounder(values) is first
    other = values.clone()
    again = rounder(other)
    assert again is not first, "another tensor is rounded anew, even with the same values"
    assert torch.equal(again, first)
    different = rounder(2 * values + 1)
    assert torch.equal(different, Grid(8, "per_token").round_trip(2 * values + 1))
    assert torch.equal(rounder(values), first)


def test_the_remembered_tensor_can_not_be_mistaken_for_one_that_took_its_place_in_memory() -> None:
    rounder = ActivationRounder(Grid(8, "per_token"))
    for seed in range(50):  # each tensor is freed at once, so the allocator hands out the same memory again
        values = _inputs(16, 16, seed=seed)
        assert torch.equal(rounder(values), Grid(8, "per_token").round_trip(values))
        del values


def _linear(kind: type[Linear], *, bias: bool = True) -> Linear:
    """A layer from 12 to 20 features with seeded weights."""
    torch.manual_seed(1)
    layer = Conv1D(20, 12) if kind is Conv1D else nn.Linear(12, 20, bias=bias)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def _outputs_by_inputs(layer: Linear) -> Tensor:
    weight = layer.weight.detach()
    return weight.T.contiguous() if isinstance(layer, Conv1D) else weight


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_a_simulated_layer_multiplies_what_was_rounded_independently(kind: type[Linear], bits: int) -> None:
    layer, values = _linear(kind), _inputs(2, 5, 12)
    simulated = SimulatedLinear(layer, Grid(bits, "per_channel"), ActivationRounder(Grid(bits, "per_token")))
    weight = torch.from_numpy(reference_rounding(_outputs_by_inputs(layer).numpy(), bits))
    inputs = torch.from_numpy(reference_rounding(values.numpy(), bits))
    expected = nn.functional.linear(inputs, weight, layer.bias)
    torch.testing.assert_close(simulated(values), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(simulated.weight, weight)
    assert simulated(values).shape == (2, 5, 20)


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@torch.no_grad()
def test_parts_without_a_grid_stay_float(kind: type[Linear]) -> None:
    layer, values = _linear(kind), _inputs(5, 12)
    torch.testing.assert_close(SimulatedLinear(layer, None, None)(values), layer(values))
    only_weights = SimulatedLinear(layer, Grid(4, "per_channel"), None)
    weight = torch.from_numpy(reference_rounding(_outputs_by_inputs(layer).numpy(), 4))
    torch.testing.assert_close(only_weights(values), nn.functional.linear(values, weight, layer.bias))
    only_inputs = SimulatedLinear(layer, None, ActivationRounder(Grid(4, "per_token")))
    inputs = torch.from_numpy(reference_rounding(values.numpy(), 4))
    torch.testing.assert_close(only_inputs(values), layer(inputs))


@torch.no_grad()
def test_a_layer_without_bias_has_none_and_the_layer_itself_is_left_alone() -> None:
    layer, values = _linear(nn.Linear, bias=False), _inputs(5, 12)
    before = layer.weight.clone()
    simulated = SimulatedLinear(layer, Grid(4, "per_channel"), None)
    assert "bias" not in dict(simulated.named_parameters())
    assert torch.equal(layer.weight, before)
    assert not torch.equal(simulated.weight, before)
    assert not simulated.weight.requires_grad
    assert not torch.equal(simulated(values), layer(values))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@torch.no_grad()
def test_the_simulated_product_is_that_of_integer_arithmetic(kind: type[Linear], bits: int) -> None:
    layer, values = _linear(kind), _inputs(32, 12) * 10.0 ** _inputs(32, 1, seed=3)
    weight_grid, input_grid = Grid(bits, "per_channel"), Grid(bits, "per_token")
    weight = _outputs_by_inputs(layer)
    weight_scale, input_scale = weight_grid.scale(weight), input_grid.scale(values)
    weight_codes, input_codes = weight_grid.codes(weight, weight_scale), input_grid.codes(values, input_scale)
    stored = [codes.to(torch.int8) for codes in (weight_codes, input_codes)]
    assert all(
        torch.equal(code.float(), codes) for code, codes in zip(stored, (weight_codes, input_codes), strict=True)
    )
    exact = stored[1].long() @ stored[0].long().T
    expected = exact.double() * input_scale.double() * weight_scale.double().T + layer.bias.double()
    simulated = SimulatedLinear(layer, weight_grid, ActivationRounder(input_grid))(values)
    size = expected.abs().amax(dim=-1, keepdim=True)
    assert ((simulated.double() - expected).abs() <= 1e-6 * size).all()
