"""The digit classifier: layers on codes against plain formulas, and what replacing them is said to do."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from inferometer.device import Device
from inferometer.fundamentals.digits import Digits, compare, measure, new_network, replaced, train
from inferometer.fundamentals.quantized_linear import QuantLinear, dequantize_per_tensor, quantize_per_tensor
from inferometer.fundamentals.seeded import bytes_of, seeded
from inferometer.fundamentals.summary import summarize_digits
from inferometer.fundamentals.tables import DIGIT_ACCURACY, DIGITS
from inferometer.sources.images import fetch_images
from inferometer.tables import write_table

CPU = Device("cpu", "a processor")
BITS = st.integers(2, 8)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(**fetch_images("optdigits", {"source": "scikit-learn"}))


def values(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(BITS, st.integers(0, 999), st.floats(1e-3, 1e3))
def test_codes_are_those_of_pytorchs_own_fake_quantization(bits: int, seed: int, size: float) -> None:
    given_values = values(seed, 5, 7) * size
    quantized = quantize_per_tensor(given_values, bits)
    last = 2 ** (bits - 1) - 1
    assert quantized.codes.dtype == torch.int8
    assert quantized.codes.shape == given_values.shape
    assert quantized.codes.abs().max() == last
    torch.testing.assert_close(quantized.scale, given_values.abs().max() / last)
    theirs = torch.fake_quantize_per_tensor_affine(given_values, float(quantized.scale), 0, -last, last)
    differs = (dequantize_per_tensor(quantized) - theirs).abs() > 1e-6 * size
    at_a_tie = ((given_values / quantized.scale) % 1 - 0.5).abs() < 1e-4  # PyTorch multiplies by 1 / s
    assert not (differs & ~at_a_tie).any()


@given(BITS, st.integers(0, 999))
def test_no_value_is_off_by_more_than_half_a_step(bits: int, seed: int) -> None:
    given_values = values(seed, 50)
    quantized = quantize_per_tensor(given_values, bits)
    off = (dequantize_per_tensor(quantized) - given_values).abs().max()
    assert off <= quantized.scale / 2 * (1 + 1e-5)


def test_a_tensor_of_zeros_stays_zero() -> None:
    assert dequantize_per_tensor(quantize_per_tensor(torch.zeros(3))).tolist() == [0, 0, 0]


@given(BITS, st.integers(0, 99), st.booleans())
def test_the_layer_multiplies_what_its_codes_stand_for(bits: int, seed: int, bias: bool) -> None:
    linear = seeded(lambda: nn.Linear(9, 4, bias=bias), seed)
    inputs = values(seed, 6, 9)
    weight, rounded = (dequantize_per_tensor(quantize_per_tensor(part, bits)) for part in (linear.weight, inputs))
    expected = functional.linear(rounded, weight, linear.bias)
    torch.testing.assert_close(QuantLinear(linear, bits)(inputs), expected, rtol=1e-5, atol=1e-5)


def test_sums_over_codes_are_exact_also_where_float32_would_not_be() -> None:
    linear = seeded(lambda: nn.Linear(4096, 3, bias=False), 0)
    with torch.no_grad():
        linear.weight.abs_()
    inputs = values(1, 2, 4096).abs() + 3
    layer, codes = QuantLinear(linear), quantize_per_tensor(inputs)
    sums = codes.codes.long() @ layer.weight.codes.long().T
    assert sums.max() > 2**24, "whole numbers from here on are not all in float32"
    expected = (sums.double() * codes.scale * layer.weight.scale).float()
    assert torch.equal(layer(inputs), expected)


def test_replacing_layers_leaves_the_float_network_as_it_was() -> None:
    network = seeded(lambda: new_network(64), 0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kinds = {
        which: [isinstance(layer, QuantLinear) for layer in replaced(network, which, 4)] for which in ("last", "all")
    }
    assert kinds == {"last": [False] * 4 + [True], "all": [True, False, True, False, True]}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert bytes_of(network) == 4 * (64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10)


def test_the_images_of_scikit_learn_are_divided_and_scaled(digits: Digits) -> None:
    assert (len(digits.train_labels), len(digits.test_labels)) == (1348, 449)
    assert set(digits.test_labels.tolist()) == set(range(10))
    inputs = digits.inputs(digits.train_images)
    assert inputs.shape == (1348, 64)
    assert [float(inputs.min()), float(inputs.max())] == [0, 1]


def test_a_seed_always_makes_the_same_network_which_reads_most_digits(digits: Digits) -> None:
    one, again, other = (train(digits, epochs=2, seed=seed) for seed in (1, 1, 2))
    first, same, changed = (next(network.parameters()) for network in (one, again, other))
    assert torch.equal(first, same)
    assert not torch.equal(first, changed)
    right = one(digits.inputs(digits.test_images)).argmax(dim=-1) == digits.test_labels
    assert right.float().mean() > 0.85


def test_chance_elsewhere_is_left_alone(digits: Digits) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    train(digits, epochs=1, seed=3)
    assert torch.equal(torch.rand(1), expected)


def test_every_image_has_a_row_for_every_replacement(digits: Digits, tmp_path: Path) -> None:
    table = measure(digits, epochs=1, seeds=[0, 1], bits=[8, 2], device=CPU)
    write_table(DIGITS, table, tmp_path / "digits.parquet")
    assert len(table) == 2 * 2 * 2 * 449
    assert table.groupby(["seed", "item"])["float_prediction"].nunique().max() == 1


def test_error_and_power_are_those_of_the_logits(digits: Digits) -> None:
    network = train(digits, epochs=1, seed=0)
    inputs = digits.inputs(digits.test_images)
    with torch.inference_mode():
        before, after = network(inputs), replaced(network, "all", 3)(inputs)
    [rows] = [rows for rows in compare(network, digits, [3]) if rows["replaced"].iloc[0] == "all"]
    assert rows["output_mse"].sum() == pytest.approx(float(((after - before) ** 2).mean(dim=1).sum()), rel=1e-4)
    assert rows["output_power"].sum() == pytest.approx(float((before**2).mean(dim=1).sum()), rel=1e-4)
    assert rows["prediction"].tolist() == after.argmax(dim=1).tolist()


def test_a_bit_is_worth_six_decibels_where_the_grid_is_fine(digits: Digits) -> None:
    summary = summarize_digits(measure(digits, epochs=1, seeds=[0, 1], bits=[8, 6], device=CPU))
    noise = summary.set_index(["replaced", "bits"])["sqnr_db"]
    for which in ("last", "all"):
        assert noise[which, 8] - noise[which, 6] == pytest.approx(12.04, abs=1.5)


def raw_rows(correct: dict[int, list[tuple[bool, bool]]]) -> pd.DataFrame:
    """A DIGITS table of one replacement: for each seed whether (float, replaced) read each image right."""
    rows = [
        {"seed": seed, "item": item, "float_prediction": 1 if before else 2, "prediction": 1 if after else 3}
        for seed, items in correct.items()
        for item, (before, after) in enumerate(items)
    ]
    table = pd.DataFrame(rows).assign(replaced="last", bits=4, label=1, output_power=100.0, output_mse=1.0)
    return table.assign(device="cpu", dtype="float32")


def test_summary_by_hand() -> None:
    yes, lost, won, no = (True, True), (True, False), (False, True), (False, False)
    summary = summarize_digits(raw_rows({0: [yes, lost, yes, no], 1: [yes, lost, lost, won]}))
    [row] = summary.to_dict("records")
    assert (row["seeds"], row["items"]) == (2, 4)
    assert row["float_accuracy"] == pytest.approx(6 / 8)
    assert row["accuracy"] == pytest.approx(4 / 8)
    assert row["change"] == pytest.approx(-2 / 8)
    assert (row["smallest_change"], row["largest_change"]) == (pytest.approx(-1 / 4), pytest.approx(-1 / 4))
    assert row["change_low"] <= row["change"] <= row["change_high"]
    assert row["sqnr_db"] == pytest.approx(20)
    assert set(row) == {column.name for column in DIGIT_ACCURACY.columns}


def test_the_interval_is_over_images_and_not_over_images_times_seeds() -> None:
    items = [(True, index % 4 > 0) for index in range(40)]
    one, ten = (summarize_digits(raw_rows(dict.fromkeys(range(count), items))).iloc[0] for count in (1, 10))
    assert (one["change_low"], one["change_high"]) == (ten["change_low"], ten["change_high"])
    assert one["change_low"] < -0.25 < one["change_high"]
