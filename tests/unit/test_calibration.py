"""Calibration: the streamed statistics are those of all values held at once."""

import dataclasses
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.calibration.calibrate import Calibration, InputRecorder, calibrate, detailed_layers
from inferometer.calibration.statistics import BlockMaxima, ChannelStatistics, FloatHistogram, PowerSums
from inferometer.calibration.tables import ACTIVATIONS, HISTOGRAMS, SURFACES, WEIGHTS
from inferometer.errors import InferometerError
from inferometer.layers import chosen_layers, decoder_layer_index
from inferometer.models import linear_layers, token_windows, weight_matrix
from inferometer.tables import read_table, write_table
from tests.tiny import CONFIGS, OUTLIER_CHANNELS, tiny_model

WINDOWS, TOKENS = 5, 40
LAYERS = [0, 2]
ARCHITECTURES = [kind for kind in CONFIGS if kind != "mixtral"]

Array = NDArray[np.float64]


def _windows(count: int = WINDOWS, tokens: int = TOKENS, *, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(64, (1, tokens), generator=generator) for _ in range(count)]


def _all_inputs(model: PreTrainedModel, windows: list[Tensor]) -> dict[str, Array]:
    """The oracle: every input of every linear layer [windows, tokens, channels], kept by its own hooks."""
    kept: dict[str, list[Array]] = {name: [] for name in linear_layers(model)}

    def keeper(name: str) -> Any:
        def keep(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            kept[name].append(arguments[0].detach().clone().double().reshape(-1, arguments[0].shape[-1]).numpy())

        return keep

    handles = [layer.register_forward_pre_hook(keeper(name)) for name, layer in linear_layers(model).items()]
    with torch.inference_mode():
        for window in windows:
            model(window)
    for handle in handles:
        handle.remove()
    return {name: np.stack(inputs) for name, inputs in kept.items()}


@dataclasses.dataclass(frozen=True)
class Run:
    """A tiny llama, the inputs of its layers by the oracle, and what calibration says of them."""

    model: PreTrainedModel
    inputs: dict[str, Array]
    calibration: Calibration


@pytest.fixture(scope="module")
def run() -> Run:
    model = tiny_model("llama")
    return Run(model, _all_inputs(model, _windows()), calibrate(model, _windows(), LAYERS))


def _counted(inputs: Array, *, first_token: bool) -> Array:
    """Inputs [windows, tokens, channels] with or without the first token of each window."""
    return inputs if first_token else inputs[:, 1:]


def _rows(frame: pd.DataFrame, **identity: Any) -> pd.DataFrame:
    for name, value in identity.items():
        frame = frame[frame[name] == value]
    return frame


@pytest.mark.parametrize("first_token", [True, False])
def test_channel_statistics_are_those_of_numpy_and_scipy(run: Run, *, first_token: bool) -> None:
    for name, inputs in run.inputs.items():
        values = _counted(inputs, first_token=first_token).reshape(-1, inputs.shape[-1])
        found = _rows(run.calibration.activations, layer=name, first_token=first_token)
        assert found["channel"].tolist() == list(range(values.shape[1]))
        assert set(found["tokens"]) == {len(values)}
        scale = values.std(axis=0)
        for column, expected, tolerance in (
            ("min", values.min(axis=0), 0),
            ("max", values.max(axis=0), 0),
            ("absmax", np.abs(values).max(axis=0), 0),
            ("mean", values.mean(axis=0), 1e-5),
            ("std", scale, 1e-5),
        ):
            error = np.abs(found[column].to_numpy(dtype=np.float64) - expected)
            assert (error <= tolerance * (scale + np.abs(expected))).all(), (name, column)
        kurtosis = scipy.stats.kurtosis(values, axis=0, fisher=False)
        np.testing.assert_allclose(found["kurtosis"], kurtosis, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("first_token", [True, False])
def test_outliers_are_counted_by_the_deviation_of_their_own_window(run: Run, *, first_token: bool) -> None:
    total = 0.0
    for name, inputs in run.inputs.items():
        beyond = [
            np.abs(window - window.mean()) > 6 * window.std() for window in _counted(inputs, first_token=first_token)
        ]
        expected = np.concatenate(beyond).mean(axis=0)
        found = _rows(run.calibration.activations, layer=name, first_token=first_token)
        np.testing.assert_allclose(found["beyond_6_sigma"], expected, rtol=1e-12, err_msg=name)
        total += expected.sum()
    assert total > 0, "the model has planted outliers, so this test has something to count"


def test_planted_outlier_channels_are_the_largest_behind_every_norm(run: Run) -> None:
    for part in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "lm_head"):
        activations = run.calibration.activations
        layers = [name for name in activations["layer"].unique() if name.endswith(part)]
        assert layers
        for name in layers:
            found = _rows(activations, layer=name, first_token=False).set_index("channel")
            assert set(found["absmax"].nlargest(2).index) == set(OUTLIER_CHANNELS), name
            assert found["beyond_6_sigma"].drop(index=list(OUTLIER_CHANNELS)).max() == 0


def _edges(histogram: pd.DataFrame, sign: int) -> tuple[Array, Array, Array]:
    """Lower and upper magnitudes and counts of the bins on one side of zero, from small to large."""
    side = histogram[histogram["low"] >= 0] if sign > 0 else histogram[histogram["low"] < 0][::-1]
    low, high = (side["low"], side["high"]) if sign > 0 else (-side["high"], -side["low"])
    return low.to_numpy(), high.to_numpy(), side["count"].to_numpy()


def _assert_is_histogram_of(histogram: pd.DataFrame, values: Array) -> None:
    """Hold the bins of either sign against np.histogram on the same edges, both half-open by magnitude."""
    assert histogram["count"].sum() == values.size
    assert (histogram["count"] > 0).all()
    for sign in (1, -1):
        low, high, counts = _edges(histogram, sign)
        magnitudes = np.abs(values[np.signbit(values) == (sign < 0)])
        edges = np.unique(np.concatenate([low, high, [0.0, np.inf]]))
        expected, _ = np.histogram(magnitudes, edges)
        found = np.zeros_like(expected)
        found[np.searchsorted(edges, low)] = counts
        np.testing.assert_array_equal(found, expected)
        assert (np.searchsorted(edges, high) == np.searchsorted(edges, low) + 1).all(), "bins overlap"


def test_histograms_hold_the_counts_of_numpy_and_every_value(run: Run) -> None:
    histograms = run.calibration.histograms
    assert set(histograms["layer"]) == detailed_layers(run.model, LAYERS)
    for name, layer in linear_layers(run.model).items():
        if decoder_layer_index(name) in LAYERS:
            for first_token in (True, False):
                values = _counted(run.inputs[name], first_token=first_token).ravel()
                found = _rows(histograms, layer=name, tensor="activation", first_token=first_token)
                _assert_is_histogram_of(found, values)
            weight = weight_matrix(layer).double().numpy().ravel()
            _assert_is_histogram_of(_rows(histograms, layer=name, tensor="weight"), weight)


@settings(max_examples=100)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_every_finite_float_has_one_bin_an_eighth_of_an_octave_wide(values: list[float]) -> None:
    histogram = FloatHistogram()
    histogram.add(torch.tensor(values[: len(values) // 2]))
    histogram.add(torch.tensor(values[len(values) // 2 :]))
    frame = histogram.frame()
    _assert_is_histogram_of(frame, np.array(values))
    assert (frame["low"] < frame["high"]).all()
    assert frame["low"].is_unique
    for sign in (1, -1):
        low, high, _ = _edges(frame, sign)
        ordinary = (low > 2.0**-126) & (high < 2.0**127)
        np.testing.assert_array_equal((high - low)[ordinary], 2.0 ** (np.floor(np.log2(low[ordinary])) - 3))


def test_edges_of_bins_belong_to_the_bin_that_is_further_from_zero() -> None:
    histogram = FloatHistogram()
    histogram.add(torch.tensor([1.0, 1.0, 1.125, -1.0, 0.0, -0.0]))
    low, high, counts = (histogram.frame()[name].tolist() for name in ("low", "high", "count"))
    tiny = 2.0**-129
    assert list(zip(low, high, counts, strict=True)) == [
        (-1.125, -1.0, 1),
        (-tiny, -0.0, 1),
        (0.0, tiny, 1),
        (1.0, 1.125, 2),
        (1.125, 1.25, 1),
    ]


@settings(max_examples=100)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_block_maxima_are_those_of_a_loop(height: int, width: int, rows: int, channels: int, seed: int) -> None:
    values = torch.randn(height, width, generator=torch.Generator().manual_seed(seed))
    frame = BlockMaxima.of(values, rows, channels).frame()
    tall, wide = math.ceil(height / rows), math.ceil(width / channels)
    expected = [
        (row, channel, float(values[row : row + tall, channel : channel + wide].abs().max()))
        for row in range(0, height, tall)
        for channel in range(0, width, wide)
    ]
    assert list(zip(frame["row"], frame["channel"], frame["magnitude"], strict=True)) == expected
    assert frame["row"].nunique() <= rows
    assert frame["channel"].nunique() <= channels


def test_surfaces_are_magnitudes_of_the_first_window_and_of_weights(run: Run) -> None:
    assert set(run.calibration.surfaces["layer"]) == detailed_layers(run.model, LAYERS)
    for name in detailed_layers(run.model, LAYERS):
        for tensor, values in (
            ("activation", run.inputs[name][0]),
            ("weight", weight_matrix(linear_layers(run.model)[name]).double().numpy()),
        ):
            surface = _rows(run.calibration.surfaces, layer=name, tensor=tensor)
            assert max(values.shape) <= 96, "each block holds one value"
            found = np.full(values.shape, np.nan)
            found[surface["row"], surface["channel"]] = surface["magnitude"]
            np.testing.assert_array_equal(found, np.abs(values))


def _assert_weight_ranges(model: PreTrainedModel, weights: pd.DataFrame) -> None:
    for name, layer in linear_layers(model).items():
        weight = layer.weight.double().numpy()
        outputs_first = weight if isinstance(layer, nn.Linear) else weight.T
        for axis, dim in (("input", 0), ("output", 1)):
            found = _rows(weights, layer=name, axis=axis)
            assert found["channel"].tolist() == list(range(outputs_first.shape[1 - dim]))
            np.testing.assert_array_equal(found["min"], outputs_first.min(axis=dim))
            np.testing.assert_array_equal(found["max"], outputs_first.max(axis=dim))
            np.testing.assert_array_equal(found["absmax"], np.abs(outputs_first).max(axis=dim))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_is_calibrated_in_every_linear_layer(kind: str, tmp_path: Path) -> None:
    model, windows = tiny_model(kind), _windows(3, 20)
    calibration = calibrate(model, windows, [1])
    inputs = _all_inputs(model, windows)
    assert list(calibration.activations["layer"].unique()) == list(inputs)
    assert calibration.tokens == 60
    for name, values in inputs.items():
        for first_token in (True, False):
            rows = _counted(values, first_token=first_token).reshape(-1, values.shape[-1])
            found = _rows(calibration.activations, layer=name, first_token=first_token)
            np.testing.assert_array_equal(found["min"], rows.min(axis=0), err_msg=name)
            np.testing.assert_array_equal(found["max"], rows.max(axis=0), err_msg=name)
            np.testing.assert_allclose(found["std"], rows.std(axis=0), rtol=1e-4, atol=1e-6, err_msg=name)
    _assert_weight_ranges(model, calibration.weights)
    for table in (ACTIVATIONS, WEIGHTS, HISTOGRAMS, SURFACES):
        frame = getattr(calibration, table.path.split("/")[-1].removesuffix(".parquet"))
        write_table(table, frame, tmp_path / "t.parquet")
        assert len(read_table(table, tmp_path / "t.parquet")) == len(frame) > 0


def test_narrow_weights_are_summarized_in_float(run: Run) -> None:
    model = tiny_model("llama").to(torch.bfloat16)  # type: ignore[arg-type]  # transformers wraps `to`
    calibration = calibrate(model, _windows(), LAYERS)
    for name, inputs in _all_inputs(model, _windows()).items():
        values = inputs.reshape(-1, inputs.shape[-1])
        found = _rows(calibration.activations, layer=name, first_token=True)
        np.testing.assert_array_equal(found["max"], values.max(axis=0))
        np.testing.assert_allclose(found["std"], values.std(axis=0), rtol=1e-4, atol=1e-6)


def test_calibration_gives_the_same_bytes_again(run: Run, tmp_path: Path) -> None:
    again = calibrate(tiny_model("llama"), _windows(), LAYERS)
    write_table(ACTIVATIONS, run.calibration.activations, tmp_path / "a")
    write_table(ACTIVATIONS, again.activations, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_constant_channels_have_no_kurtosis_and_no_deviation() -> None:
    for value in (0.0, 0.1, -1234.567):
        values = torch.full((39, 2), value)
        statistics = ChannelStatistics.of(values, values.mean(dim=0))
        frame = (statistics + ChannelStatistics.of(values, statistics.powers.pivot)).frame()
        assert frame["std"].tolist() == [0.0, 0.0]
        assert frame["kurtosis"].isna().all()


# Streaming


def _chunks(values: Tensor, cuts: list[int]) -> Iterator[Tensor]:
    bounds = sorted({0, len(values), *(cut % len(values) for cut in cuts)})
    return (values[low:high] for low, high in pairwise(bounds))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(8, 60),
    cuts=st.lists(st.integers(0, 1000), max_size=5),
    shift=st.floats(-100, 100),
    pivot_error=st.floats(-3, 3),  # in standard deviations
)
def test_power_sums_of_parts_add_up_to_those_of_the_whole(
    seed: int, rows: int, cuts: list[int], shift: float, pivot_error: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, 3, generator=generator, dtype=torch.float64) ** 3 + shift
    pivot = values.mean(dim=0) + pivot_error * values.std(dim=0)
    whole = PowerSums.of(values, pivot)
    first, *others = (PowerSums.of(chunk, pivot) for chunk in _chunks(values, cuts))
    total = sum(others, start=first)
    assert total.count == whole.count == rows
    size = (values - pivot).abs()
    powers = torch.stack([(size**power).sum(dim=0) for power in (1, 2, 3, 4)])
    assert ((total.sums - whole.sums).abs() <= 1e-12 * powers).all()
    expected = values.numpy()
    np.testing.assert_allclose(total.mean(), expected.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(total.std(), expected.std(axis=0), rtol=1e-7)
    np.testing.assert_allclose(total.kurtosis(), scipy.stats.kurtosis(expected, fisher=False), rtol=1e-6)
    np.testing.assert_allclose(total.overall_mean_and_std(), (expected.mean(), expected.std()), rtol=1e-7)


def test_adding_the_first_row_is_the_same_as_starting_with_it() -> None:
    values = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3 + 2
    values[0] = 300
    pivot = values[1:].mean(dim=0)
    grown = ChannelStatistics.of(values[1:], pivot).with_first(values).frame()
    pd.testing.assert_frame_equal(grown, ChannelStatistics.of(values, pivot).frame(), rtol=1e-5)
    assert grown["beyond_6_sigma"].tolist() == [0.02] * 4


def _held_bytes(root: object) -> int:
    """Bytes of all storages of tensors that an object holds, at any depth, each once."""
    storages: dict[int, int] = {}
    seen: set[int] = set()
    queue = [root]
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            storages[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        elif isinstance(item, dict):
            queue.extend(item.values())
        elif isinstance(item, list | tuple | set):
            queue.extend(item)
        elif type(item).__module__.startswith("inferometer"):
            queue.extend(vars(item).values())
    return sum(storages.values())


@torch.inference_mode()
def test_state_does_not_grow_with_the_number_of_windows() -> None:
    model = tiny_model("llama")
    held = {}
    for count in (4, 40):
        recorder = InputRecorder(model, detailed_layers(model, [0]))
        for window in _windows(count):
            recorder.start_window(TOKENS)
            model(window)
        recorder.remove()
        held[count] = _held_bytes(recorder)
    assert held[4] == held[40]
    assert held[4] > 1000


def test_layers_that_read_one_tensor_share_one_record() -> None:
    model = tiny_model("llama")
    recorder = InputRecorder(model, set())
    recorder.start_window(TOKENS)
    model(_windows()[0])
    recorder.remove()
    assert recorder.reader_of["model.layers.1.self_attn.v_proj"] == "model.layers.1.self_attn.q_proj"
    assert recorder.reader_of["model.layers.1.mlp.up_proj"] == "model.layers.1.mlp.gate_proj"
    assert len(recorder.records) == 3 * 4 + 1


def test_the_output_head_is_recorded_whole_though_it_computes_the_last_token_only(run: Run) -> None:
    seen = []
    head = run.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _layer, _inputs, logits: seen.append(logits.shape))
    calibration = calibrate(run.model, _windows(2), [0])
    handle.remove()
    assert seen == [(1, 1, 64), (1, 1, 64)]
    assert set(_rows(calibration.activations, layer="lm_head", first_token=True)["tokens"]) == {2 * TOKENS}


def test_the_model_is_left_as_it_was_also_after_a_failure() -> None:
    model, window = tiny_model("llama"), _windows(1)[0]
    before = model(window).logits

    def failing() -> Iterator[Tensor]:
        yield window
        raise InferometerError("the text broke off.")

    calibrate(model, [window], [0])
    with pytest.raises(InferometerError, match="broke off"):
        calibrate(model, failing(), [0])
    assert not any(layer._forward_pre_hooks for layer in linear_layers(model).values())
    torch.testing.assert_close(model(window).logits, before, rtol=0, atol=0)


# What can't be calibrated


class HalfRouted(nn.Module):
    """A feed-forward part that every second token skips, as in a mixture of experts."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: Tensor) -> Tensor:
        """Change every second token only."""
        values = values.clone()
        values[:, ::2] = self.inner(values[:, ::2])
        return values


class Alternating(nn.Module):
    """A layer that reads the same tensor as its neighbour in every second call only."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.calls = 0

    def forward(self, values: Tensor) -> Tensor:
        """The inner layer's result, on a copy of its input every second time."""
        self.calls += 1
        result: Tensor = self.inner(values if self.calls % 2 else values.clone())
        return result


def test_a_layer_that_sees_only_some_tokens_is_refused_by_name() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp = HalfRouted(model.model.layers[1].mlp)
    with pytest.raises(InferometerError, match=r"layers\.1\.mlp\.inner\.gate_proj sees 20 rows .* 40 tokens: .*routed"):
        calibrate(model, _windows(), [0])


def test_a_layer_whose_input_changes_from_window_to_window_is_refused_by_name() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp.up_proj = Alternating(model.model.layers[1].mlp.up_proj)
    with pytest.raises(InferometerError, match=r"up_proj\.inner does not read the same input"):
        calibrate(model, _windows(), [0])


def test_a_layer_that_never_runs_is_refused_by_name() -> None:
    model = tiny_model("llama")
    model.spare = nn.Linear(4, 4)
    with pytest.raises(InferometerError, match="layer spare was never run"):
        calibrate(model, _windows(), [0])
    with pytest.raises(InferometerError, match="was never run"):
        calibrate(tiny_model("llama"), [], [0])


def test_a_mixture_of_experts_is_refused_and_not_measured_without_its_experts() -> None:
    with pytest.raises(InferometerError, match=r"model\.layers\.0\.mlp\.experts\.gate_up_proj.*mixtures of experts"):
        calibrate(tiny_model("mixtral"), _windows(), [0])


# Windows and layers


def test_windows_follow_each_other_without_overlap_and_drop_the_tail() -> None:
    tokens = torch.arange(23)
    windows = list(token_windows(tokens, 5, "all", "the text"))
    assert [tuple(window.shape) for window in windows] == [(1, 5)] * 4
    assert torch.cat(windows, dim=1).flatten().tolist() == list(range(20))
    assert [window.tolist() for window in token_windows(tokens, 5, 2, "the text")] == [
        [[0, 1, 2, 3, 4]],
        [[5, 6, 7, 8, 9]],
    ]
    assert len(list(token_windows(tokens, 5, 100, "the text"))) == 4
    assert len(list(token_windows(tokens, 23, "all", "the text"))) == 1


def test_a_text_shorter_than_one_window_is_refused_by_name() -> None:
    with pytest.raises(InferometerError, match="corpus 'notes' has 23 tokens, fewer than one window of 24"):
        token_windows(torch.arange(23), 24, "all", "corpus 'notes'")


@pytest.mark.parametrize(
    ("wanted", "layers", "chosen"),
    [
        (["first", "middle", "last"], 32, [0, 15, 31]),
        (["first", "middle", "last"], 3, [0, 1, 2]),
        (["last", "middle", "first"], 2, [0, 1]),
        (["first", "middle", "last"], 1, [0]),
        (["last", 0, "first", 2], 3, [0, 2]),
        ([5], 6, [5]),
    ],
)
def test_layers_are_chosen_by_name_or_number(wanted: list[str | int], layers: int, chosen: list[int]) -> None:
    assert chosen_layers(wanted, layers) == chosen


@pytest.mark.parametrize("beyond", [3, 100, -1])
def test_a_layer_that_the_model_lacks_is_refused_by_key(beyond: int) -> None:
    with pytest.raises(InferometerError, match=rf"`calibration\.layers` asks for layer {beyond}, .* has 3 layers"):
        chosen_layers(["first", beyond], 3)


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_with_the_layer(damage: float) -> None:
    model = tiny_model("llama")
    model.get_submodule("model.layers.1.mlp.up_proj").get_parameter("weight")[0, 0] = damage
    window = torch.arange(16)[None]
    with pytest.raises(InferometerError, match=r"layers\.\d\.\S+ has weights or inputs that are not numbers"):
        calibrate(model, [window], [0])
