"""GPTQ: codes that an independent oracle gives too, outputs closer to the float ones, and inputs that tell nothing."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from inferometer.quantization.floats import FloatGrid
from inferometer.quantization.gptq import (
    COLUMNS_AT_ONCE,
    DAMPING,
    INVERTED_AT_ONCE,
    round_with_compensation,
    second_moments_of,
)
from inferometer.quantization.grids import Grid, IntegerGrid, Parameters, Quantized

Array = NDArray[np.float64]

GRIDS: list[Grid] = [
    IntegerGrid("per_channel", bits=4),
    IntegerGrid("per_channel", bits=2),
    IntegerGrid("per_channel", bits=3, symmetric=False),
    IntegerGrid("per_channel", bits=4, clip="mse"),
    IntegerGrid("per_channel", bits=4, clip="percentile", percentile=95.0),
    IntegerGrid("per_tensor", bits=4),
    IntegerGrid("per_tensor", bits=4, symmetric=False),
    IntegerGrid("per_group", 16, bits=4),
    IntegerGrid("per_group", 16, bits=4, symmetric=False, clip="mse"),
    FloatGrid("per_channel", format="fp8_e4m3"),
    FloatGrid("per_group", 32, "mxfp4"),
    FloatGrid("per_group", 16, "nvfp4"),
]


def _weight(outputs: int, inputs: int, *, seed: int = 0) -> Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


def _correlated_rows(count: int, inputs: int, *, seed: int = 1) -> Tensor:
    """Rows of a few directions with some noise, in channels of very different sizes, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(inputs // 4, inputs, generator=generator)
    rows = torch.randn(count, inputs // 4, generator=generator) @ directions
    rows += 0.3 * torch.randn(count, inputs, generator=generator)
    return rows * 10 ** (0.5 * torch.randn(inputs, generator=generator))


def _moments(rows: Tensor) -> Tensor:
    return rows.T @ rows


def _rounded(weight: Tensor, grid: Grid, moments: Tensor) -> Quantized:
    [quantized] = round_with_compensation([weight], grid, moments)
    return quantized


def _values(quantized: Quantized) -> Tensor:
    copied = Quantized(quantized.grid, quantized.codes.clone(), quantized.parameters, quantized.shape)
    return copied.values()


def _parameters(weight: Tensor, grid: Grid, moments: Tensor) -> Parameters:
    """The grid's parameters for a weight whose inputs have these second moments."""
    return grid.parameters(grid.vectors(weight), grid.vectors(moments.diagonal().expand_as(weight)))


def _spread(parameter: Tensor, grid: Grid, weight: Tensor) -> Array:
    spread: Array = parameter.expand(grid.vectors(weight).shape).reshape(weight.shape).double().numpy()
    return spread


def _one_by_one(weight: Tensor, grid: Grid, moments: Tensor) -> Array:
    """The oracle: Optimal Brain Quantization in the order of falling second moment, with no Cholesky factor.

    Frantar et al. 2023, eq. 2: round weight q, then change those that remain by -(w_q - quant(w_q)) / [H_F^-1]_qq
    times column q of H_F^-1, where H_F is H of the weights that remain, inverted anew each time.
    """
    remaining = sorted(range(weight.shape[1]), key=lambda column: -float(moments[column, column]))
    damped = moments.double().numpy() + np.eye(weight.shape[1]) * DAMPING * float(moments.diagonal().double().mean())
    parameters = _parameters(weight, grid, moments)
    scale = _spread(parameters.scale, grid, weight)
    zero = None if parameters.zero_point is None else _spread(parameters.zero_point, grid, weight)
    now: Array = weight.double().numpy().copy()
    codes = np.zeros_like(now)
    while remaining:
        column = remaining[0]
        inverse = np.linalg.inv(damped[np.ix_(remaining, remaining)])
        own_zero = None if zero is None else torch.from_numpy(zero[:, column, None]).float()
        own = Parameters(torch.from_numpy(scale[:, column, None]).float(), own_zero)
        code = grid.nearest(torch.from_numpy(now[:, column, None]).float(), own).double().numpy()
        codes[:, column, None] = code
        value = scale[:, column, None] * (code - (0 if zero is None else zero[:, column, None]))
        error = (now[:, column, None] - value) / inverse[0, 0]
        now[:, remaining] -= error * inverse[0]
        remaining = remaining[1:]
    return codes


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("inputs", [32, 64])
def test_codes_are_those_of_the_method_written_another_way(grid: Grid, inputs: int) -> None:
    weight, moments = _weight(12, inputs), _moments(_correlated_rows(200, inputs))
    found = _rounded(weight, grid, moments).codes.reshape(weight.shape).double().numpy()
    expected = _one_by_one(weight, grid, moments)
    assert (found != grid.quantized(weight).codes.reshape(weight.shape).double().numpy()).mean() > 0.02
    # One code in many may lie on the edge between two and fall to the other side, in float32 or in float64.
    assert (found != expected).mean() <= 0.01


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 63, 64, 130])
def test_second_moments_of_parts_are_those_of_all_rows_and_symmetric_to_the_last_bit(width: int) -> None:
    rows = _correlated_rows(50, max(width, 4))[:, :width]
    found = second_moments_of(rows.split(20))
    assert torch.equal(found, found.T)
    expected = rows.double().T @ rows.double()
    sizes = expected.diagonal().sqrt()
    assert ((found - expected).abs() <= 1e-5 * sizes[:, None] * sizes).all()


@pytest.mark.parametrize(
    "inputs",
    [
        *(COLUMNS_AT_ONCE - 1, COLUMNS_AT_ONCE, COLUMNS_AT_ONCE + 1, 2 * COLUMNS_AT_ONCE + 7),
        *(INVERTED_AT_ONCE, INVERTED_AT_ONCE + 1, 2 * INVERTED_AT_ONCE + 3),
    ],
)
def test_columns_taken_in_blocks_give_what_they_give_one_by_one(inputs: int) -> None:
    grid = IntegerGrid("per_channel", bits=4)
    weight, moments = _weight(3, inputs), _moments(_correlated_rows(2 * inputs, inputs))
    found = _rounded(weight, grid, moments).codes.double().numpy()
    assert (found != _one_by_one(weight, grid, moments)).mean() <= 0.01


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("moment", [1.0, 7.5, 1e-6, 1e6])
def test_inputs_that_are_not_correlated_leave_nothing_to_make_up_for(grid: Grid, moment: float) -> None:
    weight = _weight(8, 32)
    found, nearest = _rounded(weight, grid, moment * torch.eye(32)), grid.quantized(weight)
    assert torch.equal(found.codes, grid.nearest(grid.vectors(weight), nearest.parameters))
    assert torch.equal(found.parameters.scale, nearest.parameters.scale)
    assert found.shape == weight.shape
    sizes = torch.linspace(0.1, 30, 32)[torch.randperm(32, generator=torch.Generator().manual_seed(0))]
    parameters = _parameters(weight, grid, sizes.diag())
    nearest_codes = grid.nearest(grid.vectors(weight), parameters)
    assert torch.equal(_rounded(weight, grid, sizes.diag()).codes, nearest_codes), "whatever the order of columns"


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_outputs_are_closer_to_the_float_ones_than_those_of_nearest_rounding(grid: Grid, seed: int) -> None:
    weight, rows = _weight(24, 160, seed=seed), _correlated_rows(400, 160, seed=seed + 1)
    fresh = _correlated_rows(400, 160, seed=seed + 1)[:200] + 0.01
    compensated, nearest = _values(_rounded(weight, grid, _moments(rows))), grid.round_trip(weight)

    def error(rounded: Tensor, inputs: Tensor) -> float:
        return float((inputs @ (rounded - weight).T).norm())

    # Where clipping cuts the weight itself, that error comes first and the room for making up for it is small.
    assert error(compensated, rows) < 0.9 * error(nearest, rows)
    assert error(compensated, fresh) < 0.9 * error(nearest, fresh)
    assert (compensated - weight).norm() >= (nearest - weight).norm(), "the weight itself is not what counts"


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if isinstance(grid, IntegerGrid)], ids=str)
def test_codes_stay_whole_and_within_the_bounds_of_the_grid(grid: IntegerGrid) -> None:
    weight, rows = _weight(16, 64), _correlated_rows(70, 64)
    codes = _rounded(weight, grid, _moments(rows)).codes
    first, last = grid.codes
    assert torch.equal(codes, codes.round())
    assert first <= int(codes.min())
    assert int(codes.max()) <= last
    assert codes.shape == grid.vectors(weight).shape


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_several_weights_at_once_get_what_each_gets_alone(grid: Grid) -> None:
    weights = [_weight(outputs, 64, seed=outputs) * outputs for outputs in (5, 1, 12)]
    before = [weight.clone() for weight in weights]
    moments = _moments(_correlated_rows(150, 64))
    kept = moments.clone()
    for weight, together in zip(weights, round_with_compensation(weights, grid, moments), strict=True):
        alone = _rounded(weight, grid, moments)
        assert torch.equal(together.parameters.scale, alone.parameters.scale)
        assert together.shape == alone.shape == weight.shape
        assert (together.codes != alone.codes).float().mean() <= 0.01  # sums of other lengths round otherwise
    assert all(torch.equal(weight, own) for weight, own in zip(weights, before, strict=True))
    assert torch.equal(moments, kept)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_channels_that_calibration_never_lit_are_rounded_to_nearest(grid: Grid) -> None:
    weight, rows = _weight(8, 64), _correlated_rows(150, 64)
    dead = [0, 17, 18, 63]
    rows[:, dead] = 0
    quantized = _rounded(weight, grid, _moments(rows))
    nearest = grid.nearest(grid.vectors(weight), _parameters(weight, grid, _moments(rows))).reshape(weight.shape)
    assert torch.equal(quantized.codes.reshape(weight.shape)[:, dead], nearest[:, dead])
    assert _values(quantized).isfinite().all()


def test_inputs_that_were_always_zero_give_nearest_rounding() -> None:
    grid, weight = IntegerGrid("per_channel", bits=4), _weight(8, 32)
    assert torch.equal(_rounded(weight, grid, torch.zeros(32, 32)).codes, grid.quantized(weight).codes)


def test_fewer_rows_than_channels_and_massive_channels_are_survived() -> None:
    grid, weight = IntegerGrid("per_channel", bits=4), _weight(8, 96)
    few = _correlated_rows(5, 96)
    massive = _correlated_rows(300, 96)
    massive[:, 7] *= 1e4
    for rows in (few, massive, few[:1]):
        rounded = _values(_rounded(weight, grid, _moments(rows)))
        assert rounded.isfinite().all()
        nearest = grid.round_trip(weight)
        assert (rows @ (rounded - weight).T).norm() < (rows @ (nearest - weight).T).norm()


def test_channels_that_matter_most_are_rounded_first_and_so_to_their_nearest() -> None:
    grid, weight = IntegerGrid("per_channel", bits=3), _weight(16, 64)
    rows = _correlated_rows(300, 64)
    rows[:, 41] *= 1000
    codes = _rounded(weight, grid, _moments(rows)).codes
    assert torch.equal(codes[:, 41], grid.quantized(weight).codes[:, 41])
