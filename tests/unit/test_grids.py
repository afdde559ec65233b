"""Integer grids: their properties, and their arithmetic bit for bit against references written another way."""

import struct
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from inferometer.quantization.grids import CLIP_RATIOS, Clip, Granularity, IntegerGrid, quantile

BITS = st.integers(2, 16)
GRANULARITIES: tuple[Granularity, ...] = ("per_tensor", "per_channel", "per_token", "per_group")
CLIPS: tuple[Clip, ...] = ("absmax", "percentile", "mse")
ULP = 2.0**-22  # some rounding errors of float32, relative to the value

Floats = NDArray[np.float32]


def matrices() -> st.SearchStrategy[Tensor]:
    """Float32 tensors of 1 to 4 dimensions, the last a multiple of 4, with all magnitudes and whole rows of zeros."""
    sides = st.tuples(st.lists(st.integers(1, 4), max_size=3), st.integers(1, 3))
    shapes = sides.map(lambda drawn: (*drawn[0], 4 * drawn[1]))
    ordinary = st.floats(-(2**14), 2**14, width=32) | st.floats(-(2**-12), 2**-12, width=32) | st.just(0.0)
    return hnp.arrays(np.float32, shapes, elements=ordinary, fill=st.just(0.0)).map(torch.from_numpy)


@st.composite
def grids(draw: st.DrawFn, clips: tuple[Clip, ...] = CLIPS) -> IntegerGrid:
    """Every kind of grid that suits these matrices."""
    granularity = draw(st.sampled_from(GRANULARITIES))
    clip = draw(st.sampled_from(clips))
    return IntegerGrid(
        granularity,
        group_size=draw(st.sampled_from([1, 2, 4])) if granularity == "per_group" else None,
        bits=draw(BITS),
        symmetric=draw(st.booleans()),
        clip=clip,
        percentile=draw(st.sampled_from([50.0, 90.0, 99.9, 100.0])) if clip == "percentile" else None,
    )


def grid_of(granularity: Granularity, bits: int = 8, *, symmetric: bool = True, clip: Clip = "absmax") -> IntegerGrid:
    """A grid with the usual group size and percentile."""
    group_size = 64 if granularity == "per_group" else None
    return IntegerGrid(granularity, group_size, bits, symmetric, clip, 99.9 if clip == "percentile" else None)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference_rounding(values: Floats, bits: int) -> Floats:
    """The oracle: absmax rounding row by row, as the SmoothQuant reference does it, in numpy."""
    largest = np.float32(2 ** (bits - 1) - 1)
    rounded = np.empty_like(values)
    for place in np.ndindex(values.shape[:-1]):
        absmax = max(np.abs(values[place]).max(), np.float32(1e-5))
        step = np.float32(absmax) / largest
        rounded[place] = np.rint(values[place] / step) * step
    return rounded


def reference_asymmetric_rounding(values: Floats, bits: int) -> Floats:
    """The oracle: Jacob et al., row by row in numpy; the range takes zero in, and zero has a code of its own."""
    largest = np.float32(2**bits - 1)
    rounded = np.empty_like(values)
    for place in np.ndindex(values.shape[:-1]):
        row = values[place]
        low, high = min(row.min(), np.float32(0)), max(row.max(), np.float32(0))
        step = max(high - low, np.float32(1e-5)) / largest
        zero = np.rint(-low / step)
        rounded[place] = (np.clip(np.rint(row / step) + zero, 0, largest) - zero) * step
    return rounded


def ends(grid: IntegerGrid, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The step, and the smallest and the largest value of the grid, for each vector of values."""
    parameters = grid.parameters(grid.vectors(values))
    zero = 0 if parameters.zero_point is None else parameters.zero_point
    first, last = (parameters.scale * (code - zero) for code in grid.codes)
    return parameters.scale, first, last


@settings(max_examples=300)
@given(matrices(), grids())
def test_no_value_within_the_grid_moves_by_more_than_half_a_step_and_the_others_go_to_its_ends(
    values: Tensor, grid: IntegerGrid
) -> None:
    step, first, last = ends(grid, values)
    vectors, rounded = grid.vectors(values), grid.vectors(grid.round_trip(values))
    slack = ULP * vectors.abs().amax(dim=-1, keepdim=True)
    nearest = torch.minimum(torch.maximum(vectors, first), last)
    assert ((rounded - nearest).abs() <= step / 2 + slack).all()
    assert torch.equal(rounded[vectors > last + step], last.expand_as(vectors)[vectors > last + step])
    assert torch.equal(rounded[vectors < first - step], first.expand_as(vectors)[vectors < first - step])


@settings(max_examples=300)
@given(matrices(), grids(clips=("absmax",)))
def test_the_grid_of_absmax_reaches_every_value(values: Tensor, grid: IntegerGrid) -> None:
    step, _, _ = ends(grid, values)
    vectors, rounded = grid.vectors(values), grid.vectors(grid.round_trip(values))
    assert ((rounded - vectors).abs() <= step / 2 + ULP * vectors.abs().amax(dim=-1, keepdim=True)).all()


@given(matrices(), grids())
def test_codes_are_whole_numbers_within_the_range_of_the_bits(values: Tensor, grid: IntegerGrid) -> None:
    most = 2 ** (grid.bits - 1) - 1
    assert grid.codes == ((-most, most) if grid.symmetric else (0, 2 * most + 1))
    codes = grid.quantized(values).codes
    assert torch.equal(codes, codes.round())
    assert codes.min() >= grid.codes[0]
    assert codes.max() <= grid.codes[1]


@given(matrices(), matrices(), grids())
def test_codes_stay_in_range_for_values_that_the_grid_was_not_made_for(
    values: Tensor, others: Tensor, grid: IntegerGrid
) -> None:
    parameters = replace(grid, granularity="per_tensor").parameters(values.reshape(1, -1))
    codes = grid.nearest(others.reshape(1, -1), parameters)
    assert codes.min() >= grid.codes[0]
    assert codes.max() <= grid.codes[1]


@settings(max_examples=300)
@given(matrices(), grids())
def test_rounding_again_with_the_same_parameters_changes_nothing_at_all(values: Tensor, grid: IntegerGrid) -> None:
    once = grid.quantized(values)
    codes = once.codes.clone()
    rounded = once.values()
    again = grid.nearest(grid.vectors(rounded), once.parameters)
    assert torch.equal(again, codes)
    assert torch.equal(grid.decoded(again, once.parameters).reshape(values.shape), rounded)


@given(matrices(), grids(clips=("absmax",)))
def test_rounding_again_with_new_parameters_gives_the_same_codes(values: Tensor, grid: IntegerGrid) -> None:
    grid = replace(grid, symmetric=True)
    if grid.granularity == "per_group":  # where float16 is finer than the grid, so that absmax gets the last code
        grid = replace(grid, bits=min(grid.bits, 8))
        values = values.where(grid.parameters(grid.vectors(values)).scale.min() >= 2.0**-14, 0)
    once = grid.round_trip(values)
    assert torch.equal(grid.quantized(values).codes, grid.quantized(once).codes)
    torch.testing.assert_close(grid.round_trip(once), once, rtol=ULP, atol=0)  # the step may move by its last bit


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_groups_that_were_rounded_before_keep_their_scales_and_every_bit(bits: int) -> None:
    grid = grid_of("per_group", bits)
    once = grid.round_trip(normal(64, 640))
    assert torch.equal(grid.round_trip(once), once)


@given(st.data(), BITS, st.integers(-10, 10))
def test_values_on_the_grid_stay_exactly_what_they_are(data: st.DataObject, bits: int, exponent: int) -> None:
    grid = IntegerGrid("per_token", bits=bits)
    largest = grid.codes[1]
    codes = st.integers(-largest, largest)
    rows = data.draw(st.lists(st.lists(codes, min_size=3, max_size=3), min_size=1, max_size=4))
    values = torch.tensor([[*row, largest] for row in rows], dtype=torch.float32) * 2.0**exponent
    assert torch.equal(grid.round_trip(values), values)


@settings(max_examples=300)
@given(matrices(), grids())
def test_zero_stays_exactly_zero(values: Tensor, grid: IntegerGrid) -> None:
    assert (grid.round_trip(values)[values == 0] == 0).all()


@given(matrices(), grids())
def test_signs_mirror_on_symmetric_grids(values: Tensor, grid: IntegerGrid) -> None:
    grid = replace(grid, symmetric=True)
    assert torch.equal(grid.round_trip(-values), -grid.round_trip(values))


@given(matrices(), grids())
def test_the_input_is_left_untouched(values: Tensor, grid: IntegerGrid) -> None:
    before = values.clone()
    rounded = grid.round_trip(values)
    assert torch.equal(values, before)
    assert rounded.data_ptr() != values.data_ptr()


@given(matrices(), st.sampled_from([(True, 2, 3), (True, 3, 5), (True, 4, 7), (True, 2, 16), (False, 4, 8)]))
def test_a_grid_that_holds_all_points_of_another_is_never_further_away(
    values: Tensor, kind: tuple[bool, int, int]
) -> None:
    symmetric, *bits = kind
    values = values if symmetric else values.abs()  # so that both grids start at zero
    coarse, fine = (IntegerGrid("per_token", bits=number, symmetric=symmetric) for number in bits)
    assert fine.codes[1] % coarse.codes[1] == 0, "every coarse point must also be a fine one"
    errors = [(grid.round_trip(values) - values).abs() for grid in (coarse, fine)]
    assert (errors[1] <= errors[0] + ULP * values.abs().amax(dim=-1, keepdim=True)).all()


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [1.0, 0.001])
def test_more_bits_never_cost_more(granularity: Granularity, symmetric: bool, clip: Clip, size: float) -> None:
    values = normal(64, 256) * size
    errors = []
    for bits in (2, 3, 4, 5, 6, 7, 8, 16):
        rounded = grid_of(granularity, bits, symmetric=symmetric, clip=clip).round_trip(values)
        errors.append(float((rounded - values).double().square().mean().sqrt()))
    assert all(fewer > more for fewer, more in pairwise(errors))
    if clip != "percentile":
        assert all(fewer > 1.5 * more for fewer, more in pairwise(errors))
        assert errors[-1] < 1e-3 * values.std()


@pytest.mark.parametrize("symmetric", [True, False])
def test_each_bit_halves_the_error_as_the_theory_of_uniform_rounding_says(symmetric: bool) -> None:
    values = torch.rand(200, 500, generator=torch.Generator().manual_seed(0)) * 2 - 1
    previous = float("inf")
    for bits in range(3, 13):
        grid = IntegerGrid("per_tensor", bits=bits, symmetric=symmetric)
        error = float((grid.round_trip(values) - values).double().square().mean().sqrt())
        step = float(grid.parameters(values.reshape(1, -1)).scale)
        assert error == pytest.approx(step / 12**0.5, rel=0.02)  # Widrow: step / sqrt(12)
        assert error < 0.6 * previous
        previous = error


@settings(deadline=None)
@given(
    st.integers(2, 8), st.booleans(), st.sampled_from(["per_channel", "per_group", "per_tensor"]), st.integers(0, 99)
)
def test_errors_that_count_for_more_decide_where_the_grid_ends(
    bits: int, symmetric: bool, granularity: Granularity, seed: int
) -> None:
    grid = grid_of(granularity, bits, symmetric=symmetric, clip="mse")
    values, importance = normal(3, 128, seed=seed), 10 ** (2 * normal(128, seed=seed + 1)).expand(3, 128)
    vectors, weights = grid.vectors(values), grid.vectors(importance)

    def costs(scale: Tensor, zero_point: Tensor | None) -> NDArray[np.float64]:
        zero = 0 if zero_point is None else zero_point.numpy()
        codes = np.clip(np.rint(vectors.numpy() / scale.numpy()) + zero, *grid.codes)
        errors = weights.double().numpy() * ((codes - zero) * scale.double().numpy() - vectors.numpy()) ** 2
        total: NDArray[np.float64] = errors.sum(axis=-1)
        return total

    ends = replace(grid, clip="absmax")
    tried = [ends.parameters(ratio * vectors) for ratio in CLIP_RATIOS]
    least = np.min([costs(own.scale, own.zero_point) for own in tried], axis=0)
    found, plain = grid.parameters(vectors, weights), grid.parameters(vectors)
    np.testing.assert_allclose(costs(found.scale, found.zero_point), least, rtol=1e-4)
    assert (costs(found.scale, found.zero_point) <= costs(plain.scale, plain.zero_point) * (1 + 1e-5)).all()
    same = grid.parameters(vectors, torch.ones_like(weights))
    assert torch.equal(same.scale, plain.scale)


@settings(max_examples=300)
@given(matrices(), grids(clips=("mse",)))
def test_clipping_for_the_squared_error_never_has_a_larger_one_than_absmax(values: Tensor, grid: IntegerGrid) -> None:
    vectors = grid.vectors(values).double()

    def error(tried: IntegerGrid) -> Tensor:
        return (grid.vectors(tried.round_trip(values)).double() - vectors).square().sum(dim=-1)

    slack = 1e-6 * vectors.square().sum(dim=-1) * 2.0**-grid.bits
    assert (error(grid) <= error(replace(grid, clip="absmax")) * (1 + 1e-5) + slack).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_clipping_for_the_squared_error_takes_the_best_of_all_ratios(
    granularity: Granularity, symmetric: bool, bits: int
) -> None:
    values = normal(6, 128)
    grid = grid_of(granularity, bits, symmetric=symmetric, clip="mse")
    first, last = grid.codes
    clipped = 0
    for vector, rounded in zip(
        grid.vectors(values).reshape(-1, grid.vectors(values).shape[-1]).numpy().astype(np.float64),
        grid.vectors(grid.round_trip(values)).reshape(-1, grid.vectors(values).shape[-1]).numpy(),
        strict=True,
    ):
        errors = []
        for ratio in CLIP_RATIOS:
            low, high = (vector.min(), vector.max()) if not symmetric else (0, np.abs(vector).max())
            step = (high - low) * ratio / last
            if granularity == "per_group":
                half = np.float16(step)
                step = float(half if half >= step else np.nextafter(half, np.float16(np.inf)))
            zero = 0 if symmetric else np.rint(-low * ratio / step)
            tried = (np.clip(np.rint(vector / step) + zero, first, last) - zero) * step
            errors.append(np.square(tried - vector).sum())
        assert np.square(rounded - vector).sum() == pytest.approx(min(errors), rel=1e-4)
        clipped += min(errors) < 0.98 * errors[0]
    assert clipped, "some of these vectors are worth clipping"


@given(matrices(), grids(clips=("absmax",)))
def test_the_hundredth_percentile_is_absmax(values: Tensor, grid: IntegerGrid) -> None:
    whole = replace(grid, clip="percentile", percentile=100.0)
    assert torch.equal(whole.round_trip(values), grid.round_trip(values))


def test_a_percentile_grid_ends_at_the_percentile() -> None:
    values = torch.linspace(-50, 100, 151)[None]  # -50, -49 ... 100
    symmetric = IntegerGrid("per_channel", bits=8, clip="percentile", percentile=80)
    _, first, last = ends(symmetric, values)
    expected = float(np.quantile(values.abs().numpy(), 0.8))
    assert [float(first), float(last)] == pytest.approx([-expected, expected])
    asymmetric = replace(symmetric, symmetric=False, bits=16)
    _, first, last = ends(asymmetric, values)
    assert [float(first), float(last)] == pytest.approx([-20, 70], abs=0.01)
    assert asymmetric.round_trip(values).min() == first
    assert asymmetric.round_trip(values).max() == last


@given(matrices(), st.floats(0, 1))
def test_quantiles_are_those_of_torch_and_numpy(values: Tensor, share: float) -> None:
    found = quantile(values, share)
    slack = 4e-7 * values.abs().amax(dim=-1, keepdim=True) + 2.0**-148
    expected = torch.from_numpy(np.quantile(values.double().numpy(), share, axis=-1, keepdims=True))
    assert ((found - expected).abs() <= slack).all()
    expected = torch.quantile(values.double(), share, dim=-1, keepdim=True)
    assert ((found - expected).abs() <= slack).all()


def test_quantiles_know_no_longest_vector() -> None:
    values = torch.arange(2**24 + 2, dtype=torch.float32)[None]
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(values, 0.5)
    assert float(quantile(values, 0.75)) == pytest.approx(0.75 * (2**24 + 1), abs=2)


@pytest.mark.parametrize("granularity", ["per_channel", "per_token", "per_tensor"])
@settings(max_examples=200)
@given(values=matrices(), bits=BITS)
def test_symmetric_rounding_is_that_of_the_smoothquant_reference_bit_for_bit(
    granularity: Granularity, values: Tensor, bits: int
) -> None:
    rows = values.reshape(1, -1) if granularity == "per_tensor" else values
    expected = torch.from_numpy(reference_rounding(rows.numpy(), bits)).reshape(values.shape)
    assert torch.equal(IntegerGrid(granularity, bits=bits).round_trip(values), expected)


@pytest.mark.parametrize("granularity", ["per_channel", "per_token", "per_tensor"])
@settings(max_examples=200)
@given(values=matrices(), bits=BITS)
def test_asymmetric_rounding_is_that_of_jacob_bit_for_bit(granularity: Granularity, values: Tensor, bits: int) -> None:
    rows = values.reshape(1, -1) if granularity == "per_tensor" else values
    expected = torch.from_numpy(reference_asymmetric_rounding(rows.numpy(), bits)).reshape(values.shape)
    assert torch.equal(IntegerGrid(granularity, bits=bits, symmetric=False).round_trip(values), expected)


def test_asymmetric_grids_spend_no_code_on_a_sign_that_does_not_occur() -> None:
    values = torch.tensor([[0.0, 1.0, 2.0, 15.0], [-15.0, -3.0, -1.0, 0.0], [-5.0, 0.0, 1.0, 10.0]])
    grid = IntegerGrid("per_token", bits=4, symmetric=False)
    assert torch.equal(grid.round_trip(values), values)
    assert grid.quantized(values).codes.tolist() == [[0, 1, 2, 15], [0, 12, 14, 15], [0, 5, 6, 15]]


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [("per_tensor", (1, 1)), ("per_channel", (4, 1)), ("per_token", (4, 1)), ("per_group", (4, 2, 1))],
)
def test_a_step_is_shared_by_what_the_granularity_says(granularity: Granularity, shape: tuple[int, ...]) -> None:
    values = torch.tensor([[1.0, -8.0, 2.0, 7.0], [0.5, 0.25, -0.5, 1], [0.0, 0.0, 0.0, 0], [64.0, 1.0, 1.0, 32]])
    grid = IntegerGrid(granularity, 2 if granularity == "per_group" else None, 2)
    scale = grid.parameters(grid.vectors(values)).scale
    assert scale.shape == shape
    expected = {"per_tensor": [64], "per_group": [8, 7, 0.5, 1, 2**-24 * 168, 2**-24 * 168, 64, 32]}
    assert scale.flatten().tolist() == pytest.approx(expected.get(granularity, [8, 1, 1e-5, 64]))


def test_every_token_of_a_batch_has_a_step_of_its_own() -> None:
    values = normal(2, 5, 7)
    assert IntegerGrid("per_token").parameters(values).scale.shape == (2, 5, 1)
    assert torch.equal(
        IntegerGrid("per_token").round_trip(values),
        torch.stack([torch.stack([IntegerGrid("per_tensor").round_trip(row) for row in item]) for item in values]),
    )


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("clip", CLIPS)
def test_groups_are_rounded_as_rows_of_their_own(symmetric: bool, clip: Clip) -> None:
    values = normal(2, 3, 256)
    grouped = grid_of("per_group", 4, symmetric=symmetric, clip=clip)
    assert torch.equal(grouped.round_trip(values), grouped.round_trip(values.reshape(-1, 64)).reshape(values.shape))
    moved = values.clone()
    moved[..., :64] *= 100
    assert torch.equal(grouped.round_trip(moved)[..., 64:], grouped.round_trip(values)[..., 64:])


@given(matrices(), grids(clips=("absmax",)))
def test_scales_of_groups_are_the_smallest_float16_numbers_that_reach_every_value(
    values: Tensor, grid: IntegerGrid
) -> None:
    grid = replace(grid, granularity="per_group", group_size=4)
    groups = grid.vectors(values)
    scale = grid.parameters(groups).scale.numpy()
    span = (
        groups.abs().amax(-1, keepdim=True)
        if grid.symmetric
        else groups.clamp(0).amax(-1, keepdim=True) + ((-groups).clamp(0).amax(-1, keepdim=True))
    )
    exact = np.maximum(span.numpy(), np.float32(1e-5)) / np.float32(grid.codes[1])
    assert np.array_equal(scale.astype(np.float16).astype(np.float32), scale)
    assert (scale >= exact).all()
    assert (np.nextafter(scale.astype(np.float16), np.float16(0)) < exact).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_zeros_stay_zeros(bits: int, clip: Clip, symmetric: bool, granularity: Granularity) -> None:
    rounded = grid_of(granularity, bits, symmetric=symmetric, clip=clip).round_trip(torch.zeros(3, 64))
    assert torch.equal(rounded, torch.zeros(3, 64))


def test_halves_are_rounded_to_the_even_code() -> None:
    values = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 7.0]])
    assert IntegerGrid("per_token", bits=4).round_trip(values).tolist() == [[0.0, 2.0, 2.0, -0.0, -2.0, -2.0, 7.0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("bits", [4, 8])
def test_models_of_any_precision_are_rounded_to_the_grid_of_float32(dtype: torch.dtype, bits: int) -> None:
    values = normal(2000, 64).to(dtype)
    for symmetric, reference in ((True, reference_rounding), (False, reference_asymmetric_rounding)):
        rounded = IntegerGrid("per_token", bits=bits, symmetric=symmetric).round_trip(values)
        expected = reference(values.float().numpy(), bits)
        assert rounded.dtype == dtype
        assert torch.equal(rounded, torch.from_numpy(expected).to(dtype))


@given(grids())
def test_how_a_tensor_lies_in_memory_does_not_matter(grid: IntegerGrid) -> None:
    values = normal(4, 3, 8)
    for layout in (
        values.transpose(0, 1).contiguous().transpose(0, 1),
        values.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        torch.stack([values, values], dim=-1)[..., 0],
    ):
        assert not layout.is_contiguous()
        assert torch.equal(grid.round_trip(layout), grid.round_trip(values))
    row = values[0, 0]
    assert torch.equal(grid.round_trip(row.expand(5, 8)), grid.round_trip(row.repeat(5, 1)))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("clip", ["absmax", "mse"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_hidden(granularity: Granularity, symmetric: bool, clip: Clip, bad: float) -> None:
    values = normal(3, 128)
    values[1, 5] = bad
    grid = grid_of(granularity, 4, symmetric=symmetric, clip=clip)
    rounded = grid.vectors(grid.round_trip(values))
    struck = ~grid.vectors(values).isfinite().all(dim=-1, keepdim=True).expand_as(rounded)
    assert rounded[struck].isnan().all()
    assert rounded[~struck].isfinite().all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_what_is_no_number_stays_none_where_a_percentile_clips_it(symmetric: bool) -> None:
    values = normal(3, 2000)
    values[1, 5] = float("nan")
    rounded = grid_of("per_token", symmetric=symmetric, clip="percentile").round_trip(values)
    assert rounded[1, 5].isnan()
    assert rounded[[0, 2]].isfinite().all()


def test_a_group_whose_scale_is_beyond_float16_is_no_number_and_every_other_grid_takes_huge_values() -> None:
    values = torch.cat([torch.full((1, 64), 1e30), torch.ones(1, 64)], dim=-1)
    rounded = grid_of("per_group").round_trip(values)
    assert rounded[:, :64].isnan().all()
    assert torch.equal(rounded[:, 64:], grid_of("per_group").round_trip(torch.ones(1, 64)))
    assert float(grid_of("per_token").round_trip(values)[0, 0]) == pytest.approx(1e30)
    assert float(grid_of("per_token", symmetric=False).round_trip(values)[0, 0]) == pytest.approx(1e30)


def _packed(grid: IntegerGrid, values: Tensor) -> str:
    """All bits that a tensor needs, one vector after another: its scale, its zero point, its codes."""
    quantized = grid.quantized(values)
    length = quantized.codes.shape[-1]
    scales = quantized.parameters.scale.flatten().tolist()
    kind, width = ("<e", 16) if grid.granularity == "per_group" else ("<f", 32)
    bits = []
    for number, codes in enumerate(quantized.codes.reshape(-1, length).tolist()):
        bits.append(f"{int.from_bytes(struct.pack(kind, scales[number]), 'little'):0{width}b}")
        if quantized.parameters.zero_point is not None:
            bits.append(f"{int(quantized.parameters.zero_point.flatten()[number]):0{grid.bits}b}")
        bits += [f"{int(code) - grid.codes[0]:0{grid.bits}b}" for code in codes]
    return "".join(bits)


def _unpacked(grid: IntegerGrid, packed: str, shape: torch.Size) -> Tensor:
    kind, width = ("<e", 16) if grid.granularity == "per_group" else ("<f", 32)
    length = grid.vectors(torch.empty(shape)).shape[-1]
    place = 0

    def number(bits: int) -> int:
        nonlocal place
        place += bits
        return int(packed[place - bits : place], 2)

    values: list[np.float32] = []
    while place < len(packed):
        scale = np.float32(struct.unpack(kind, number(width).to_bytes(width // 8, "little"))[0])
        zero = 0 if grid.symmetric else number(grid.bits)
        values += [scale * np.float32(number(grid.bits) + grid.codes[0] - zero) for _ in range(length)]
    return torch.from_numpy(np.array(values, np.float32)).reshape(shape)


@given(matrices(), grids())
def test_bytes_are_those_of_a_tensor_packed_bit_by_bit_which_has_all_that_is_needed(
    values: Tensor, grid: IntegerGrid
) -> None:
    packed = _packed(grid, values)
    assert grid.bytes_of(values.shape) == -(-len(packed) // 8)
    assert torch.equal(_unpacked(grid, packed, values.shape), grid.round_trip(values))


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (grid_of("per_channel", 8), 1536 * 576 + 1536 * 4),
        (grid_of("per_tensor", 8), 1536 * 576 + 4),
        (grid_of("per_group", 4), 1536 * 576 // 2 + 1536 * 9 * 2),
        (grid_of("per_group", 4, symmetric=False), 1536 * 576 // 2 + 1536 * 9 * 5 // 2),
        (grid_of("per_group", 3), 1536 * 576 * 3 // 8 + 1536 * 9 * 2),
    ],
)
def test_a_weight_takes_the_bytes_of_its_codes_and_scales(grid: IntegerGrid, expected: int) -> None:
    assert grid.bytes_of(torch.Size([1536, 576])) == expected


@given(matrices(), grids())
def test_finite_values_stay_finite(values: Tensor, grid: IntegerGrid) -> None:
    assert grid.round_trip(values).isfinite().all()
