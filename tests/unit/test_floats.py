"""Float grids against all codes of the published formats, and against scales computed one block at a time."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from inferometer.quantization.floats import E2M1, E4M3, E5M2, ELEMENTS, FloatElement, FloatGrid
from inferometer.quantization.formats import BLOCKS

Floats = NDArray[np.float32]

FORMATS = {
    "e4m3": (E4M3, 4, 3, 7),  # exponent bits, significand bits, bias: OCP FP8 1.0 table 1, OCP MX 1.0 section 5.3
    "e5m2": (E5M2, 5, 2, 15),
    "e2m1": (E2M1, 2, 1, 1),
}
FP8 = [("fp8_e4m3", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)]


def all_values(name: str) -> list[float]:
    """The values of all codes without a sign, in the order of the codes; infinities and not-a-numbers left out."""
    _, exponent_bits, significand_bits, bias = FORMATS[name]
    values = []
    for code in range(2 ** (exponent_bits + significand_bits)):
        exponent, fraction = divmod(code, 2**significand_bits)
        special = {"e4m3": code == 0b1111111, "e5m2": exponent == 0b11111, "e2m1": False}[name]
        if not special:
            implicit = 1 if exponent else 0
            values.append((implicit + fraction / 2**significand_bits) * 2.0 ** (max(exponent, 1) - bias))
    return values


def brute_force(values: Tensor, name: str) -> Tensor:
    """The nearest of all codes; of two as near the even one, which ends in a zero bit."""
    codes = np.array(all_values(name))
    flat = values.double().flatten().numpy().clip(-2 * codes[-1], 2 * codes[-1])
    distances = np.abs(np.abs(flat)[:, None] - codes)
    nearest = distances.argmin(axis=1)  # the first of two as near
    above = np.minimum(nearest + 1, len(codes) - 1)
    tied = np.take_along_axis(distances, above[:, None], 1)[:, 0] == distances.min(axis=1)
    chosen = np.where(tied & (nearest % 2 == 1), above, nearest)
    return torch.from_numpy(np.copysign(codes[chosen], flat)).float().reshape(values.shape)


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def telling_values(name: str) -> Tensor:
    """Every code, every middle between two, all float32 neighbours of these, and what lies far outside."""
    codes = all_values(name)
    points = torch.tensor(codes + [(low + high) / 2 for low, high in pairwise(codes)] + [codes[-1] * 1.0625])
    extremes = torch.tensor([1e30, 3e38, 1e-30, 1e-45, 2.0**-126, codes[-1] * 1.5, codes[-1] * 2])
    around = [points, *(points.nextafter(torch.tensor(end)) for end in (0.0, float("inf"))), extremes]
    positive = torch.cat(around)
    return torch.cat([positive, -positive])


def blocks(length: int) -> st.SearchStrategy[Tensor]:
    """Some blocks with values of all sizes, in one row."""
    sizes = st.floats(-4, 4, width=32) | st.floats(-(2**20), 2**20, width=32) | st.floats(width=32, allow_nan=False)
    return st.integers(1, 4).flatmap(
        lambda number: hnp.arrays(
            np.float32,
            (2, number * length),
            elements=sizes.filter(lambda value: abs(value) < 1e38) | st.just(0.0),
            fill=st.just(0.0),
        ).map(torch.from_numpy)
    )


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grid_of(name: str) -> FloatGrid:
    return FloatGrid("per_group", BLOCKS[name], name) if name in BLOCKS else FloatGrid("per_token", format=name)


ELEMENT_OF = {"fp8_e4m3": "e4m3", "fp8_e5m2": "e5m2", "mxfp8": "e4m3", "mxfp4": "e2m1", "nvfp4": "e2m1"}


@pytest.mark.parametrize(
    ("name", "smallest", "smallest_normal", "largest", "number"),
    [
        ("e4m3", 2**-9, 2**-6, 448, 127),
        ("e5m2", 2**-16, 2**-14, 57344, 124),
        ("e2m1", 0.5, 1, 6, 8),
    ],
)
def test_the_oracle_has_the_published_values(
    name: str, smallest: float, smallest_normal: float, largest: float, number: int
) -> None:
    codes = all_values(name)
    element = FORMATS[name][0]
    assert (codes[1], codes[-1], len(codes)) == (smallest, largest, number)
    assert smallest_normal in codes
    assert codes == sorted(codes)
    assert element.largest == largest
    assert 2.0**element.smallest_exponent == smallest_normal
    assert 2.0**element.largest_exponent == 2 ** math.floor(math.log2(largest))
    if name == "e2m1":
        assert codes == [0, 0.5, 1, 1.5, 2, 3, 4, 6]


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_middle_and_neighbour_is_rounded_to_the_nearest_code_ties_to_even(name: str) -> None:
    values = telling_values(name)
    assert same_bits(FORMATS[name][0].nearest(values), brute_force(values, name))


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=300)
@given(values=hnp.arrays(np.float32, 20, elements=st.floats(width=32, allow_nan=False)).map(torch.from_numpy))
def test_any_value_is_rounded_to_the_nearest_code(name: str, values: Tensor) -> None:
    before = values.clone()
    assert same_bits(FORMATS[name][0].nearest(values), brute_force(values, name))
    assert same_bits(values, before)


@pytest.mark.parametrize(("name", "dtype"), FP8)
def test_fp8_is_what_a_saturating_cast_gives_for_every_bfloat16_number(name: str, dtype: torch.dtype) -> None:
    every = torch.arange(2**16, dtype=torch.int32).sub(2**15).to(torch.int16).view(torch.bfloat16).float()
    every = torch.cat([every[~every.isnan()], telling_values(ELEMENT_OF[name]), normal(10_000)])
    element = ELEMENTS[name]
    expected = every.clamp(-element.largest, element.largest).to(dtype).float()
    assert same_bits(element.nearest(every), expected)


@pytest.mark.parametrize("element", [E4M3, E5M2, E2M1])
def test_what_is_no_number_stays_none_and_infinity_saturates(element: FloatElement) -> None:
    rounded = element.nearest(torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0]))
    assert rounded[0].isnan()
    assert rounded[1:].tolist() == [element.largest, -element.largest, 1.0]


def mx_by_hand(values: Tensor, name: str) -> Tensor:
    """OCP MX 1.0, section 6.3, one block of 32 at a time: the shared exponent, then every element by brute force."""
    emax = {"mxfp8": 8, "mxfp4": 2}[name]
    rounded = []
    for block in values.reshape(-1, 32):
        largest = max(abs(value) for value in block.tolist())
        exponent = math.frexp(largest)[1] - 1 - emax if largest else -127
        exponent = min(max(exponent, -127), 127)
        codes = brute_force(torch.from_numpy(np.ldexp(block.double().numpy(), -exponent)), ELEMENT_OF[name])
        rounded.append(torch.from_numpy(np.ldexp(codes.double().numpy(), exponent)).float())
    return torch.stack(rounded).reshape(values.shape)


@pytest.mark.parametrize("name", ["mxfp8", "mxfp4"])
@settings(max_examples=200)
@given(values=blocks(32))
def test_mx_formats_are_those_of_the_specification_bit_for_bit(name: str, values: Tensor) -> None:
    grid = grid_of(name)
    assert same_bits(grid.round_trip(values), mx_by_hand(values, name))
    scale = grid.parameters(grid.vectors(values)).scale.double()
    assert (torch.frexp(scale).mantissa == 0.5).all(), "only powers of two have a code"
    assert (scale >= 2.0**-127).all()
    assert (scale <= 2.0**127).all()


@pytest.mark.parametrize("name", ["mxfp8", "mxfp4"])
@pytest.mark.parametrize("exponent", [*range(-149, -110), -30, -1, 0, 1, 30, 100, 127])
def test_the_shared_exponent_is_exact_at_and_just_below_powers_of_two(name: str, exponent: int) -> None:
    largest = torch.tensor(2.0**exponent, dtype=torch.float64).float()
    for value in (largest, largest.nextafter(torch.tensor(0.0))):
        block = torch.linspace(-1, 1, 32) * value
        assert same_bits(grid_of(name).round_trip(block[None]), mx_by_hand(block[None], name))


def nvfp4_by_hand(values: Tensor) -> Tensor:
    """NVIDIA 2025, appendix B, one block of 16 at a time: a float32 scale for the tensor, an E4M3 one for the block."""
    array = values.numpy()
    tensor_scale = max(np.abs(array).max(), np.float32(1e-5)) / np.float32(6 * 448)
    rounded = []
    for block in array.reshape(-1, 16):
        block_scale = np.abs(block).max() / np.float32(6) / tensor_scale
        stored = brute_force(torch.tensor([block_scale]), "e4m3").numpy()[0]
        if stored == 0:
            rounded.append(np.copysign(np.float32(0), block))
        else:
            scale = stored * tensor_scale
            rounded.append(brute_force(torch.from_numpy(block / scale), "e2m1").numpy() * scale)
    return torch.from_numpy(np.array(rounded, np.float32)).reshape(values.shape)


@settings(max_examples=300)
@given(blocks(16))
def test_nvfp4_has_two_levels_of_scales_bit_for_bit(values: Tensor) -> None:
    assert same_bits(grid_of("nvfp4").round_trip(values), nvfp4_by_hand(values))


def test_nvfp4_is_close_to_the_formula_with_reciprocals_in_double_precision() -> None:
    values = normal(64, 256).double()
    encode = 6 * 448 / values.abs().max()  # equations 1 to 4
    blocks = values.reshape(-1, 16)
    stored = brute_force((blocks.abs().amax(-1, keepdim=True) / 6 * encode).float(), "e4m3").double()
    encode_block = 1 / (stored / encode)
    expected = (brute_force(blocks * encode_block, "e2m1").double() * stored / encode).reshape(values.shape)
    found = grid_of("nvfp4").round_trip(values)
    assert found.dtype == torch.float64
    same = (found - expected).abs() <= 1e-6 * values.abs().max()
    assert same.double().mean() > 0.999, "only float32 rounding next to a tie may turn a code"


def test_a_block_too_small_for_an_nvfp4_scale_becomes_zeros() -> None:
    values = torch.ones(1, 48)
    values[0, :16] = 1e6
    values[0, 16] = -1.0
    smallest = 2.0**-9 * 1e6 / 448  # times 6, the largest value of a block that has the smallest scale
    values[0, 32:] = 6 * smallest
    rounded = grid_of("nvfp4").round_trip(values)
    assert torch.equal(rounded[0, 16:32], torch.zeros(16))
    assert rounded[0, 16].signbit()
    torch.testing.assert_close(rounded[0, 32:], values[0, 32:])
    torch.testing.assert_close(rounded[0, :16], values[0, :16])


@pytest.mark.parametrize(("name", "dtype"), FP8)
@settings(max_examples=200)
@given(values=blocks(8))
def test_fp8_scales_the_largest_magnitude_of_a_row_to_the_largest_value(
    name: str, dtype: torch.dtype, values: Tensor
) -> None:
    largest = np.float32(ELEMENTS[name].largest)
    scale = np.maximum(np.abs(values.numpy()).max(-1, keepdims=True), np.float32(1e-5)) / largest
    scaled = torch.from_numpy(values.numpy() / scale).clamp(-float(largest), float(largest))
    expected = scaled.to(dtype).float() * torch.from_numpy(scale)
    assert same_bits(FloatGrid("per_token", format=name).round_trip(values), expected)


@pytest.mark.parametrize("name", ELEMENTS)
@settings(max_examples=100)
@given(values=blocks(32))
def test_rounding_again_with_the_same_parameters_changes_nothing_at_all(name: str, values: Tensor) -> None:
    grid = grid_of(name)
    once = grid.quantized(values)
    codes = once.codes.clone()
    assert set(codes.abs().flatten().tolist()) <= set(all_values(ELEMENT_OF[name]))
    rounded = once.values()
    again = grid.nearest(grid.vectors(rounded), once.parameters)
    assert torch.equal(again, codes)
    assert torch.equal(grid.decoded(again, once.parameters).reshape(values.shape), rounded)
    if name.startswith("mx"):
        assert torch.equal(grid.round_trip(rounded), rounded), "its scale does not change either"


@pytest.mark.parametrize("name", ELEMENTS)
@settings(max_examples=100)
@given(values=blocks(32))
def test_zero_stays_zero_signs_mirror_and_the_input_is_left_untouched(name: str, values: Tensor) -> None:
    grid, before = grid_of(name), values.clone()
    rounded = grid.round_trip(values)
    assert same_bits(values, before)
    assert (rounded[values == 0] == 0).all()
    assert rounded.isfinite().all()
    assert torch.equal(grid.round_trip(-values), -rounded)


@pytest.mark.parametrize("name", ELEMENTS)
def test_zeros_stay_zeros_with_their_signs(name: str) -> None:
    zeros = torch.zeros(2, 64)
    zeros[1] = -0.0
    assert same_bits(grid_of(name).round_trip(zeros), zeros)


@pytest.mark.parametrize("name", ["mxfp8", "mxfp4"])
@pytest.mark.parametrize("exponent", [-90, -30, 0, 30, 90])
def test_mx_formats_are_as_exact_for_huge_and_tiny_values(name: str, exponent: int) -> None:
    values = normal(4, 64)
    assert torch.equal(
        grid_of(name).round_trip(values * 2.0**exponent), grid_of(name).round_trip(values) * 2.0**exponent
    )


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2", "nvfp4"])
def test_scaled_formats_take_huge_values_and_drop_what_is_far_below_the_smallest_absmax(name: str) -> None:
    values = normal(4, 64)
    rounded = grid_of(name).round_trip(values)
    torch.testing.assert_close(grid_of(name).round_trip(values * 2.0**100) * 2.0**-100, rounded)
    assert not grid_of(name).round_trip(values * 1e-30).any()


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_hidden(name: str, bad: float) -> None:
    grid, values = grid_of(name), normal(3, 64)
    values[1, 5] = bad
    rounded = grid.vectors(grid.round_trip(values))
    struck = ~grid.vectors(values).isfinite().all(dim=-1, keepdim=True).expand_as(rounded)
    assert rounded[struck].isnan().all()
    if name == "nvfp4":
        assert rounded.isnan().all(), "its blocks share a scale of the tensor"
    else:
        assert rounded[~struck].isfinite().all()


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_any_precision_are_rounded_to_the_grid_of_float32(name: str, dtype: torch.dtype) -> None:
    values = normal(8, 64).to(dtype)
    rounded = grid_of(name).round_trip(values)
    assert rounded.dtype == dtype
    assert torch.equal(rounded, grid_of(name).round_trip(values.float()).to(dtype))


@pytest.mark.parametrize("name", ELEMENTS)
def test_how_a_tensor_lies_in_memory_and_how_many_dimensions_it_has_does_not_matter(name: str) -> None:
    values = normal(6, 64)
    grid = grid_of(name)
    rounded = grid.round_trip(values)
    assert torch.equal(grid.round_trip(values.T.contiguous().T), rounded)
    assert torch.equal(grid.round_trip(torch.stack([values, values], dim=-1)[..., 1]), rounded)
    assert torch.equal(grid.round_trip(values.reshape(2, 3, 64)), rounded.reshape(2, 3, 64))
    assert torch.equal(grid.round_trip(values.reshape(2, 1, 3, 64)), rounded.reshape(2, 1, 3, 64))
    assert torch.equal(grid.round_trip(values[0].expand(3, 64))[2], grid.round_trip(values[0]))


@pytest.mark.parametrize(
    ("name", "largest_error"),
    [("fp8_e4m3", 2.0**-4), ("fp8_e5m2", 2.0**-3), ("mxfp8", 1 / 7), ("mxfp4", 1 / 3), ("nvfp4", 1 / 4)],
)
def test_errors_of_normal_values_are_a_share_of_the_value(name: str, largest_error: float) -> None:
    """Half a step of the rounded value, or what saturation of up to 512 to 448 and of up to 8 to 6 takes away."""
    grid, values = grid_of(name), normal(64, 64)
    quantized = grid.quantized(values)
    usual = quantized.codes.abs() >= 2.0**grid.element.smallest_exponent
    rounded = quantized.values().reshape(usual.shape)
    assert ((grid.vectors(values) - rounded).abs() <= largest_error * (1 + 1e-6) * rounded.abs())[usual].all()
    assert usual.double().mean() > 0.6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp8_e4m3", 64 * 96 + 64 * 4),
        ("fp8_e5m2", 64 * 96 + 64 * 4),
        ("mxfp8", 64 * 3 * (32 + 1)),
        ("mxfp4", 64 * 3 * (16 + 1)),
        ("nvfp4", 64 * 6 * (8 + 1) + 4),
    ],
)
def test_bytes_are_those_of_codes_and_scales(name: str, expected: int) -> None:
    assert grid_of(name).bytes_of(torch.Size([64, 96])) == expected


def test_more_bits_and_smaller_blocks_cost_less() -> None:
    values = normal(64, 256)
    error = {name: float((grid_of(name).round_trip(values) - values).square().mean()) for name in ELEMENTS}
    assert error["fp8_e4m3"] < error["fp8_e5m2"] < error["nvfp4"] < error["mxfp4"]
    assert error["mxfp8"] < error["fp8_e5m2"]
