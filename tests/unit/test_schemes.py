"""Schemes: what they round and how, and that a model comes back from them exactly as it was."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from inferometer.errors import InferometerError
from inferometer.folding import folded, relative_error
from inferometer.models import linear_layers, quantizable_layers, weight_matrix
from inferometer.quantization import integer
from inferometer.quantization.bitsandbytes_layers import BitsandbytesLinear, reason_not_available
from inferometer.quantization.floats import FloatGrid
from inferometer.quantization.gptq import round_with_compensation
from inferometer.quantization.grids import Grid, IntegerGrid
from inferometer.quantization.integer import ActivationCoder, IntegerLinear, PackedLinear
from inferometer.quantization.kernels import FALLBACK, Kernel, exact_kernels
from inferometer.quantization.model import QuantizedLayer, quantized, rounded_layer
from inferometer.quantization.noise import sqnr_db
from inferometer.quantization.simulated import ActivationRounder, SimulatedIntegerLinear, SimulatedLinear
from inferometer.rotation.fold import online_rotations, rotation_changes
from inferometer.rotation.hadamard import Rotation
from inferometer.rotation.online import RotatedInput
from inferometer.rotation.paths import find_paths
from inferometer.schemes import Activations, Scheme, Weights
from inferometer.smoothing.fold import folding_changes
from inferometer.smoothing.sites import find_sites
from tests.tiny import COMMON, CONFIGS, tiny_model

ARCHITECTURES = [kind for kind in CONFIGS if kind != "mixtral"]
TOKENS = torch.randint(64, (1, 40), generator=torch.Generator().manual_seed(0))
WINDOWS = [torch.randint(64, (1, 40), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)]

Entry = dict[str, Any]


def _bits(weights: int, activations: int, **more: Any) -> Entry:
    return {
        "weights": {"bits": weights, "granularity": "per_channel"},
        "activations": {"bits": activations, "granularity": "per_token"},
        **more,
    }


GROUPS = {"granularity": "per_group", "group_size": 16}
STATIC = {"bits": 8, "granularity": "per_tensor", "range": "static"}
GPTQ = {"bits": 4, "granularity": "per_channel", "rounding": "gptq"}
ENTRIES: dict[str, Entry] = {
    "w8a8": _bits(8, 8),
    "w4a4": _bits(4, 4),
    "w8a8-static": {"weights": {"bits": 8, "granularity": "per_channel"}, "activations": STATIC},
    "w4-gptq": {"weights": GPTQ},
    "w4a4-gptq": {"weights": GPTQ, "activations": {"bits": 4, "granularity": "per_token", "symmetric": False}},
    "w4a8-gptq-static": {
        "weights": {"bits": 4, "granularity": "per_group", "group_size": 16, "clip": "mse", "rounding": "gptq"},
        "activations": {**STATIC, "symmetric": False},
    },
    "w8a8-outliers": {
        "weights": {"bits": 8, "granularity": "per_channel"},
        "activations": {"bits": 8, "granularity": "per_token", "outlier_threshold": 6.0},
    },
    "w8a8-integer": _bits(8, 8, engine="integer"),
    "w4-integer": {"weights": {"bits": 4, "granularity": "per_group", "group_size": 16}, "engine": "integer"},
    "nvfp4": {"weights": {"format": "nvfp4"}, "activations": {"format": "nvfp4"}},
}

LLAMA_LAYERS = [
    f"model.layers.{layer}.{part}"
    for layer in range(3)
    for part in (
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
]


def _scheme(name: str, **more: Any) -> Scheme:
    return Scheme.of(name, {**ENTRIES[name], **more})


def _model(kind: str, *, seed: int = 0, outliers: bool = True) -> PreTrainedModel:
    """A tiny model with random biases: those of a fresh one are all zero."""
    model = tiny_model(kind, seed=seed, outliers=outliers)
    generator = torch.Generator().manual_seed(3)
    for layer in quantizable_layers(model).values():
        if layer.bias is not None:
            layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator))
    return model


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    logits: Tensor = model(TOKENS).logits
    return logits


@torch.no_grad()
def _rounded_logits(
    model: PreTrainedModel,
    scheme: Scheme,
    windows: Sequence[Tensor] = (),
    rotations: Mapping[str, Rotation] | None = None,
) -> Tensor:
    with quantized(model, scheme, windows, rotations or {}):
        return _logits(model)


class Trace:
    """All that must be the same afterwards: modules, hooks, the tensors themselves, their values, and the logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.modules = dict(model.named_modules())
        self.tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.values = {name: tensor.clone() for name, tensor in self.tensors.items()}
        self.state = list(model.state_dict())
        self.logits = _logits(model)

    def check(self, model: PreTrainedModel) -> None:
        now = Trace(model)
        assert now.state == self.state
        assert list(now.modules) == list(self.modules)
        assert all(now.modules[name] is module for name, module in self.modules.items())
        for module in now.modules.values():
            assert "forward" not in vars(module)
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
        assert list(now.tensors) == list(self.tensors)
        assert all(now.tensors[name] is tensor for name, tensor in self.tensors.items())
        assert all(torch.equal(now.values[name], value) for name, value in self.values.items())
        assert torch.equal(now.logits, self.logits)


def _codes_of_rows(values: Tensor, bits: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The oracle: absmax codes of every row, as whole numbers in float32, and their steps, in numpy."""
    array: NDArray[np.float32] = values.numpy()
    absmax = np.maximum(np.abs(array).max(axis=-1, keepdims=True), np.float32(1e-5))
    step = absmax / np.float32(2 ** (bits - 1) - 1)
    return np.rint(array / step), step


def _round_rows(values: Tensor, bits: int) -> Tensor:
    """The oracle: absmax rounding of every row."""
    codes, step = _codes_of_rows(values, bits)
    return torch.from_numpy(codes * step)


def _product_of_codes(values: Tensor, layer: nn.Module, bits: int) -> Tensor:
    """The oracle: codes multiplied in 64-bit integers; scaled in float32 by outputs, then by rows; then the bias."""
    assert isinstance(layer, nn.Linear | Conv1D)
    weight, weight_steps = _codes_of_rows(weight_matrix(layer).contiguous(), bits)
    rows, steps = _codes_of_rows(values.flatten(end_dim=-2), bits)
    product = (rows.astype(np.int64) @ weight.astype(np.int64).T).astype(np.float32) * weight_steps.T
    scaled, scales = torch.from_numpy(product), torch.from_numpy(steps)
    # Whether torch rounds between the last scale and the bias depends on the processor, so it is asked to do it here.
    out = scaled * scales if layer.bias is None else torch.addcmul(layer.bias, scaled, scales)
    return out.reshape(*values.shape[:-1], -1)


def _weight(layer: QuantizedLayer) -> Tensor:
    """The rounded weight of a layer that is simulated."""
    assert isinstance(layer.module, SimulatedLinear | SimulatedIntegerLinear)
    return layer.module.weight


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return tiny_model("llama")


# --- the model comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_model_comes_back_without_a_trace(kind: str, name: str) -> None:
    model = _model(kind)
    before = Trace(model)
    with quantized(model, _scheme(name), WINDOWS, {}) as layers:
        rounded = _logits(model)
        assert rounded.isfinite().all()
        assert not torch.equal(rounded, before.logits)
        assert set(layers) == set(before.modules) & set(layers)
    before.check(model)


@pytest.mark.parametrize("name", ["w4a4", "w4a8-gptq-static", "w8a8-integer"])
def test_a_model_comes_back_without_a_trace_when_the_block_fails(llama: PreTrainedModel, name: str) -> None:
    before = Trace(llama)
    with pytest.raises(RuntimeError, match="on purpose"), quantized(llama, _scheme(name), WINDOWS, {}):
        raise RuntimeError("on purpose")
    before.check(llama)


@pytest.mark.parametrize("name", ["w4a4", "w4-gptq", "w8a8-static"])
def test_a_model_comes_back_without_a_trace_when_a_layer_can_not_be_rounded(name: str) -> None:
    model = tiny_model("llama")
    before = Trace(model)
    layer = model.get_submodule("model.layers.2.mlp.down_proj")
    weight = layer.weight
    layer.weight = broken = nn.Parameter(torch.empty(0), requires_grad=False)  # the last of all: no largest value
    with pytest.raises((IndexError, RuntimeError)), quantized(model, _scheme(name), WINDOWS, {}):
        pass
    assert layer.weight is broken
    layer.weight = weight
    before.check(model)


@pytest.mark.parametrize("name", ["w4-gptq", "w8a8-static"])
def test_a_model_comes_back_without_a_trace_when_calibration_fails(llama: PreTrainedModel, name: str) -> None:
    before = Trace(llama)
    beyond = torch.full_like(WINDOWS[0], 999)  # token ids that no embedding has
    with pytest.raises(IndexError), quantized(llama, _scheme(name), [WINDOWS[0], beyond], {}):
        pass
    before.check(llama)


def test_schemes_one_after_another_start_from_the_float_model(llama: PreTrainedModel) -> None:
    names = ("w8a8", "w4a4-gptq", "w8a8-static")
    alone = {name: _rounded_logits(tiny_model("llama"), _scheme(name), WINDOWS) for name in names}
    for name in (*reversed(names), *names):
        assert torch.equal(_rounded_logits(llama, _scheme(name), WINDOWS), alone[name])


def test_a_scheme_without_grids_changes_nothing_at_all(llama: PreTrainedModel) -> None:
    before = Trace(llama)
    with quantized(llama, Scheme.of("fp", {}), [], {}) as layers:
        assert layers == {}
        before.check(llama)
    before.check(llama)


# --- what is rounded ---------------------------------------------------------------------------------------------


def test_every_linear_layer_of_a_llama_is_rounded_but_the_head(llama: PreTrainedModel) -> None:
    head = llama.get_output_embeddings()
    with quantized(llama, _scheme("w8a8"), [], {}) as layers:
        modules = llama.named_modules()
        assert [name for name, part in modules if isinstance(part, SimulatedIntegerLinear)] == LLAMA_LAYERS
        assert list(layers) == LLAMA_LAYERS
        assert llama.get_output_embeddings() is head
        assert list(linear_layers(llama)) == ["lm_head"], "nothing else is left to multiply by"


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize(("name", "module"), [("w8a8", SimulatedIntegerLinear), ("w4a8-gptq-static", SimulatedLinear)])
def test_what_is_rounded_is_every_linear_layer_but_the_head(kind: str, name: str, module: type[nn.Module]) -> None:
    model = tiny_model(kind)
    linear = {own for own, part in model.named_modules() if isinstance(part, nn.Linear | Conv1D)}
    head = next(own for own, part in model.named_modules() if part is model.get_output_embeddings())
    assert set(quantizable_layers(model)) == linear - {head}
    floats = quantizable_layers(model)
    with quantized(model, _scheme(name), WINDOWS, {}) as layers:
        assert {own for own, part in model.named_modules() if isinstance(part, module)} == linear - {head}
        assert set(layers) == linear - {head}
        for own, layer in layers.items():
            assert model.get_submodule(own) is layer.module
            assert layer.reference is floats[own]


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_the_logits_are_those_of_a_copy_rounded_by_hand(kind: str, bits: int) -> None:
    model = _model(kind)
    copied = copy.deepcopy(model)
    head = copied.get_output_embeddings()
    for layer in copied.modules():
        if isinstance(layer, nn.Linear | Conv1D) and layer is not head:
            layer.register_forward_hook(lambda own, arguments, _: _product_of_codes(arguments[0], own, bits))
    assert torch.equal(_rounded_logits(model, Scheme.of("both", _bits(bits, bits))), _logits(copied))


@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.no_grad()
def test_without_an_integer_product_the_logits_are_those_of_a_copy_with_rounded_values(kind: str) -> None:
    model = _model(kind)
    copied = copy.deepcopy(model)
    head = copied.get_output_embeddings()
    for layer in [own for own in copied.modules() if isinstance(own, nn.Linear | Conv1D) and own is not head]:
        weight = layer.weight.data.T if isinstance(layer, Conv1D) else layer.weight.data
        groups = weight.contiguous().unflatten(1, (-1, 16))
        steps = groups.abs().amax(dim=-1, keepdim=True) / 127
        halves = steps.half()  # as scales of groups are stored, rounded up
        steps = torch.where(halves.float() < steps, halves.nextafter(torch.tensor(math.inf).half()), halves).float()
        weight.copy_(((groups / steps).round() * steps).flatten(1))
        layer.register_forward_pre_hook(lambda _, arguments: (_round_rows(arguments[0], 8),))
    entry = {**_bits(8, 8), "weights": {"bits": 8, **GROUPS}}
    found = _rounded_logits(model, Scheme.of("groups", entry))
    if kind == "gpt2":  # its Conv1D adds the bias in another order, and a last bit may turn a code
        torch.testing.assert_close(found, _logits(copied), rtol=1e-2, atol=2e-2)
    else:
        assert torch.equal(found, _logits(copied))


INT8_WEIGHTS = {"bits": 8, "granularity": "per_channel"}
INT8_INPUTS = {"bits": 8, "granularity": "per_token"}


@pytest.mark.parametrize(
    ("entry", "on_codes"),
    [
        ({"weights": INT8_WEIGHTS, "activations": INT8_INPUTS}, True),
        ({"weights": {"bits": 2, "granularity": "per_tensor"}, "activations": {**INT8_INPUTS, "bits": 3}}, True),
        ({"weights": INT8_WEIGHTS, "activations": {**INT8_INPUTS, "symmetric": False}}, True),
        ({"weights": INT8_WEIGHTS, "activations": {**STATIC, "symmetric": False}}, True),
        ({"weights": GPTQ, "activations": STATIC}, True),
        ({"weights": INT8_WEIGHTS}, False),
        ({"activations": INT8_INPUTS}, False),
        ({"weights": {**INT8_WEIGHTS, "bits": 9}, "activations": INT8_INPUTS}, False),
        ({"weights": {**INT8_WEIGHTS, "symmetric": False}, "activations": INT8_INPUTS}, False),
        ({"weights": {**INT8_WEIGHTS, **GROUPS}, "activations": INT8_INPUTS}, False),
        ({"weights": {"format": "fp8_e4m3", "granularity": "per_channel"}, "activations": INT8_INPUTS}, False),
        ({"weights": INT8_WEIGHTS, "activations": {**INT8_INPUTS, "bits": 9}}, False),
        ({"weights": INT8_WEIGHTS, "activations": {**INT8_INPUTS, **GROUPS}}, False),
        ({"weights": INT8_WEIGHTS, "activations": {"bits": 8, "granularity": "per_tensor"}}, False),
        ({"weights": INT8_WEIGHTS, "activations": {"format": "fp8_e4m3", "granularity": "per_token"}}, False),
        ({"weights": INT8_WEIGHTS, "activations": {**INT8_INPUTS, "outlier_threshold": 6.0}}, False),
    ],
)
def test_schemes_that_have_an_integer_product_are_simulated_on_codes(
    llama: PreTrainedModel, entry: Entry, on_codes: bool
) -> None:
    expected = SimulatedIntegerLinear if on_codes else SimulatedLinear
    with quantized(llama, Scheme.of("any", entry), WINDOWS, {}) as layers:
        assert {type(layer.module) for layer in layers.values()} == {expected}
        assert all(layer.kernel is None for layer in layers.values())
    if on_codes:
        with quantized(llama, Scheme.of("any", {**entry, "engine": "integer"}), WINDOWS, {}) as layers:
            assert {type(layer.module) for layer in layers.values()} == {IntegerLinear}


def test_weights_and_activations_can_be_rounded_alone(llama: PreTrainedModel) -> None:
    name = "model.layers.1.mlp.up_proj"
    weight = llama.get_parameter(f"{name}.weight").clone()
    with quantized(llama, Scheme.of("w4", {"weights": ENTRIES["w4a4"]["weights"]}), [], {}) as layers:
        layer = llama.get_submodule(name)
        assert isinstance(layer, SimulatedLinear)
        assert layer.activations is None
        assert layers[name].inputs is None
        assert torch.equal(layer.weight, _round_rows(weight, 4))
    with quantized(llama, Scheme.of("a4", {"activations": ENTRIES["w4a4"]["activations"]}), [], {}) as layers:
        assert torch.equal(llama.get_parameter(f"{name}.weight"), weight)
        values = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
        expected = nn.functional.linear(_round_rows(values, 4), weight)
        assert torch.equal(llama.get_submodule(name)(values), expected)
        assert layers[name].stored_bytes == weight.nbytes
        assert math.isnan(layers[name].weight_sqnr_db)


def test_fewer_bits_cost_more(llama: PreTrainedModel) -> None:
    exact = _logits(llama)
    errors = [
        relative_error(_rounded_logits(llama, Scheme.of("both", _bits(bits, bits))), exact)
        for bits in (16, 12, 8, 6, 4, 2)
    ]
    assert errors == sorted(errors)
    assert errors[0] < 1e-3
    assert errors[-1] > 0.5


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_layers_store_and_how_far_they_are_off_is_said(kind: str) -> None:
    model = _model(kind)
    with quantized(model, _scheme("w4a4"), [], {}) as layers:
        for layer in layers.values():
            weight = weight_matrix(layer.reference).contiguous()
            rounded = _round_rows(weight, 4)
            assert layer.stored_bytes == weight.numel() // 2 + 4 * weight.shape[0]
            noise = float((rounded - weight).double().square().sum())
            expected = 10 * math.log10(float(weight.double().square().sum()) / noise)
            assert layer.weight_sqnr_db == pytest.approx(expected, abs=1e-3)
            assert torch.equal(_weight(layer), rounded)
            assert layer.kernel is None
            assert isinstance(layer.inputs, ActivationCoder)


def test_the_signal_to_noise_ratio_is_in_decibels_and_infinite_without_noise() -> None:
    values = torch.tensor([3.0, 4.0])
    assert sqnr_db(torch.tensor([3.0, 4.5]), values) == pytest.approx(20.0)
    assert sqnr_db(values, values) == math.inf


# --- entries -----------------------------------------------------------------------------------------------------


INT4, INT8 = IntegerGrid("per_channel", bits=4), IntegerGrid("per_token", bits=8)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, Scheme("any", None, None, None, (), "simulated", None)),
        (
            {"weights": {"bits": 4, "granularity": "per_channel"}},
            Scheme("any", Weights(INT4, "nearest"), None, None, (), "simulated", None),
        ),
        (
            {
                "weights": {"bits": 4, "granularity": "per_group", "group_size": 32, "symmetric": False, "clip": "mse"},
                "activations": {"bits": 8, "granularity": "per_token", "outlier_threshold": 6.0},
                "keep": ["*.down_proj"],
            },
            Scheme(
                "any",
                Weights(IntegerGrid("per_group", 32, 4, symmetric=False, clip="mse"), "nearest"),
                Activations(INT8, static=False, outlier_threshold=6.0),
                None,
                ("*.down_proj",),
                "simulated",
                None,
            ),
        ),
        (
            {
                "weights": {"bits": 4, "granularity": "per_channel", "rounding": "gptq"},
                "activations": {
                    "bits": 6,
                    "granularity": "per_tensor",
                    "clip": "percentile",
                    "percentile": 99.9,
                    "range": "static",
                },
                "rotation": {"seed": 7},
            },
            Scheme(
                "any",
                Weights(INT4, "gptq"),
                Activations(IntegerGrid("per_tensor", None, 6, True, "percentile", 99.9), True, None),
                7,
                (),
                "simulated",
                None,
            ),
        ),
        (
            {"weights": {"format": "fp8_e5m2", "granularity": "per_channel"}, "activations": {"format": "mxfp4"}},
            Scheme(
                "any",
                Weights(FloatGrid("per_channel", format="fp8_e5m2"), "nearest"),
                Activations(FloatGrid("per_group", 32, "mxfp4"), False, None),
                None,
                (),
                "simulated",
                None,
            ),
        ),
        (
            {"weights": {"format": "nvfp4"}},
            Scheme("any", Weights(FloatGrid("per_group", 16, "nvfp4"), "nearest"), None, None, (), "simulated", None),
        ),
        (
            {**_bits(8, 8, engine="integer"), "smoothing": {"alpha": 0.5}},
            Scheme(
                "any",
                Weights(IntegerGrid("per_channel"), "nearest"),
                Activations(INT8, False, None),
                None,
                (),
                "integer",
                None,
            ),
        ),
        (
            {"weights": {"format": "nf4"}, "engine": "bitsandbytes"},
            Scheme("any", None, None, None, (), "bitsandbytes", "nf4"),
        ),
    ],
)
def test_a_scheme_is_what_its_configuration_entry_says(entry: Entry, expected: Scheme) -> None:
    assert Scheme.of("any", entry) == expected


@pytest.mark.parametrize(
    ("entry", "quantizes", "calibrates"),
    [
        ({}, False, False),
        ({"rotation": {"seed": 0}}, False, False),
        ({"weights": {"format": "llm_int8"}, "engine": "bitsandbytes"}, True, False),
        *((entry, True, "gptq" in name or "static" in name) for name, entry in ENTRIES.items()),
    ],
)
def test_a_scheme_knows_whether_it_quantizes_and_needs_text(entry: Entry, quantizes: bool, calibrates: bool) -> None:
    scheme = Scheme.of("any", entry)
    assert (scheme.quantizes, scheme.calibrates) == (quantizes, calibrates)


# --- calibrated rounding -----------------------------------------------------------------------------------------


@torch.no_grad()
def _rounded_by_hand(
    model: PreTrainedModel, scheme: Scheme, windows: Sequence[Tensor], rotations: Mapping[str, Rotation]
) -> PreTrainedModel:
    """The oracle: a copy, rounded layer by layer in the order in which they run, each after a whole forward pass."""
    copied = copy.deepcopy(model)
    layers = quantizable_layers(copied)
    for name, rotation in rotations.items():
        placed = rotation.to(next(copied.parameters()))
        layers[name].register_forward_pre_hook(lambda _, arguments, placed=placed: (placed(arguments[0]),))
    order: list[str] = []
    handles = [
        layer.register_forward_pre_hook(lambda *_, name=name: order.append(name)) for name, layer in layers.items()
    ]
    copied(windows[0])
    for handle in handles:
        handle.remove()
    for layer in map(layers.__getitem__, order):
        rows: list[Tensor] = []
        handle = layer.register_forward_pre_hook(
            lambda _, arguments, rows=rows: rows.append(arguments[0].flatten(end_dim=-2).clone())
        )
        copied(torch.cat(list(windows)))
        handle.remove()
        seen, weight = torch.cat(rows), weight_matrix(layer)
        if scheme.weights is not None:
            grid = scheme.weights.grid
            if scheme.weights.rounding == "gptq":
                [codes] = round_with_compensation([weight.contiguous()], grid, seen.T @ seen)
                weight.copy_(codes.values())
            else:
                weight.copy_(grid.round_trip(weight))
        if scheme.activations is not None:
            own_grid = scheme.activations.grid
            static = own_grid.parameters(own_grid.vectors(seen)) if scheme.activations.static else None
            rounder = ActivationRounder(own_grid, static)
            layer.register_forward_pre_hook(lambda _, arguments, own=rounder: (own(arguments[0]),))
    return copied


@pytest.fixture
def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration multiplies with all digits, as oracles do: they are about what it is done on, not how finely."""
    monkeypatch.setattr("inferometer.quantization.model.quick_products", nullcontext)


CALIBRATED = ["w8a8-static", "w4-gptq", "w4a4-gptq", "w4a8-gptq-static"]


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("name", CALIBRATED)
@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.no_grad()
def test_each_layer_is_calibrated_on_what_the_rounded_layers_before_it_make_of_the_text(kind: str, name: str) -> None:
    model, scheme = _model(kind), _scheme(name)
    expected = _rounded_by_hand(model, scheme, WINDOWS, {})
    weights = {own: weight_matrix(layer) for own, layer in quantizable_layers(expected).items()}
    with quantized(model, scheme, WINDOWS, {}) as layers:
        assert set(layers) == set(weights)
        for own, layer in layers.items():
            # Sums of another order turn one code in many; a wrong order of calibration would turn most.
            off = (_weight(layer) - weights[own]).abs() > 1e-5 * weights[own].abs().max()
            assert float(off.float().mean()) <= 0.02
        found = _logits(model)
    unrounded = relative_error(_logits(model), _logits(expected))
    assert relative_error(found, _logits(expected)) < 0.25 * unrounded


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@torch.no_grad()
def test_compensation_brings_layers_closer_to_the_float_ones_on_the_text(kind: str) -> None:
    model = _model(kind, outliers=False)
    for grid in ({"bits": 4, "granularity": "per_channel"}, {"bits": 3, "granularity": "per_group", "group_size": 16}):
        errors = {}
        for rounding in ("nearest", "gptq"):
            scheme = Scheme.of(rounding, {"weights": {**grid, "rounding": rounding}})
            errors[rounding] = relative_error(_rounded_logits(model, scheme, [TOKENS, *WINDOWS]), _logits(model))
        assert errors["gptq"] < errors["nearest"]


def test_layers_that_read_one_tensor_share_a_static_range_and_others_have_their_own(llama: PreTrainedModel) -> None:
    with quantized(llama, _scheme("w8a8-static"), WINDOWS, {}) as layers:
        ranges = [id(layers[name].inputs) for name in LLAMA_LAYERS]
    of_a_block = [0, 0, 0, 1, 2, 2, 3]
    expected = [4 * block + place for block in range(3) for place in of_a_block]
    assert [sorted(set(ranges), key=ranges.index).index(own) for own in ranges] == expected


@pytest.mark.usefixtures("exact_products")
def test_static_ranges_are_those_of_the_text_and_not_of_what_is_evaluated(llama: PreTrainedModel) -> None:
    layer = "model.layers.0.mlp.down_proj"
    seen: list[Tensor] = []
    weights = Scheme.of("a8", {"activations": STATIC})
    with quantized(llama, weights, WINDOWS, {}) as layers:
        layers[layer].module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        llama(torch.cat(WINDOWS))
        llama(TOKENS)
        inputs = layers[layer].inputs
        assert isinstance(inputs, ActivationRounder)
        assert inputs.static is not None
        largest, of_other_text = (float(rows.abs().max()) for rows in seen)
        assert float(inputs.static.scale) == pytest.approx(largest / 127)
        assert of_other_text != pytest.approx(largest)
        assert float(inputs(torch.full((1, 48), 100 * largest)).max()) == pytest.approx(largest)


def test_text_is_needed_by_schemes_that_calibrate_only(llama: PreTrainedModel) -> None:
    with_text, without = (_rounded_logits(llama, _scheme("w4a4"), windows) for windows in (WINDOWS, []))
    assert torch.equal(with_text, without)
    one, other = (_rounded_logits(llama, _scheme("w4-gptq"), windows) for windows in (WINDOWS[:1], WINDOWS[1:2]))
    assert not torch.equal(one, other)


def _opt_with_projections() -> PreTrainedModel:
    """Linear layers before and behind the blocks, as in OPT-350M."""
    torch.manual_seed(0)
    fields = {**CONFIGS["opt"], "word_embed_proj_dim": 16}
    config = AutoConfig.for_model(fields.pop("model_type"), **{**COMMON, **fields})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.config.use_cache = False
    module: nn.Module = model
    module.requires_grad_(False).eval()
    return model


@pytest.mark.parametrize("name", CALIBRATED)
def test_layers_outside_of_the_blocks_can_not_be_calibrated_and_must_be_kept(name: str) -> None:
    model = _opt_with_projections()
    before = Trace(model)
    refusal = rf"layer model\.decoder\.project_\w+ lies outside of the decoder blocks.*`schemes\.{name}\.keep`"
    with pytest.raises(InferometerError, match=refusal), quantized(model, _scheme(name), WINDOWS, {}):
        pass
    before.check(model)
    with quantized(model, _scheme(name, keep=["*.project_*"]), WINDOWS, {}) as layers:
        assert len(layers) == 18
        assert not torch.equal(_logits(model), before.logits)
    before.check(model)
    with quantized(model, _scheme("w8a8"), [], {}) as layers:
        assert {"model.decoder.project_in", "model.decoder.project_out"} < set(layers)


@pytest.mark.parametrize("name", CALIBRATED)
def test_a_layer_that_the_text_never_reaches_is_refused_by_its_name(name: str) -> None:
    model = tiny_model("llama")
    model.get_submodule("model.layers.1.mlp").spare = nn.Linear(32, 32).requires_grad_(False)
    before = Trace(model)
    refusal = r"layer model\.layers\.1\.mlp\.spare was never run on the calibration text; name it in .*`keep`"
    with pytest.raises(InferometerError, match=refusal), quantized(model, _scheme(name), WINDOWS, {}):
        pass
    before.check(model)
    with quantized(model, _scheme(name, keep=["*.spare"]), WINDOWS, {}):
        pass


# --- what is kept ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (["*.down_proj"], [name for name in LLAMA_LAYERS if "down" in name]),
        (["model.layers.0.*", "model.layers.2.*"], [name for name in LLAMA_LAYERS if ".1." not in name]),
        (
            ["model.layers.1.self_attn.[qk]_proj"],
            [name for name in LLAMA_LAYERS if "1.self_attn.q" in name or "1.self_attn.k" in name],
        ),
        (["model.layers.1.mlp.up_proj"], ["model.layers.1.mlp.up_proj"]),
        (["*"], LLAMA_LAYERS),
    ],
)
@pytest.mark.parametrize("name", ["w4a4", "w4a8-gptq-static", "w8a8-integer"])
def test_layers_whose_names_match_a_pattern_stay_in_float(
    llama: PreTrainedModel, name: str, keep: list[str], kept: list[str]
) -> None:
    floats, before = quantizable_layers(llama), Trace(llama)
    with quantized(llama, _scheme(name, keep=keep), WINDOWS, {}) as layers:
        assert list(layers) == [own for own in LLAMA_LAYERS if own not in kept]
        assert all(llama.get_submodule(own) is floats[own] for own in kept)
        assert torch.equal(_logits(llama), before.logits) == (kept == LLAMA_LAYERS)
    before.check(llama)


@pytest.mark.parametrize("pattern", ["down_proj", "*.c_proj", "lm_head", "MODEL.*"])
def test_a_pattern_that_matches_nothing_is_refused_with_the_names_there_are(
    llama: PreTrainedModel, pattern: str
) -> None:
    before = Trace(llama)
    scheme = _scheme("w4a4", keep=["*.down_proj", pattern])
    refusal = (
        rf"`schemes\.w4a4\.keep` has the pattern '{pattern.replace('*', '[*]')}', which matches no .* such as model"
    )
    with pytest.raises(InferometerError, match=refusal), quantized(llama, scheme, [], {}):
        pass
    before.check(llama)


@pytest.mark.parametrize(
    "entry",
    [
        {"weights": {"bits": 4, "granularity": "per_group", "group_size": 32}},
        {"weights": {"bits": 4, "granularity": "per_channel"}, "activations": {"format": "mxfp4"}},
    ],
)
def test_groups_that_do_not_divide_the_width_of_a_layer_are_refused_by_its_name(
    llama: PreTrainedModel, entry: Entry
) -> None:
    before = Trace(llama)
    refusal = r"layer model\.layers\.0\.mlp\.down_proj reads 48 channels, which groups of 32 .* `schemes\.any\.keep`"
    with pytest.raises(InferometerError, match=refusal), quantized(llama, Scheme.of("any", entry), [], {}):
        pass
    before.check(llama)
    with quantized(llama, Scheme.of("any", {**entry, "keep": ["*.down_proj"]}), [], {}) as layers:
        assert len(layers) == 18


# --- other engines -----------------------------------------------------------------------------------------------


INTEGER: dict[str, Entry] = {
    "w8a8": _bits(8, 8),
    "w4a8": _bits(4, 8),
    "w8a8 asymmetric": {**_bits(8, 8), "activations": {"bits": 8, "granularity": "per_token", "symmetric": False}},
    "w8a8 static": ENTRIES["w8a8-static"],
    "w8a8 static and asymmetric": {
        **ENTRIES["w8a8-static"],
        "activations": {**STATIC, "symmetric": False},
    },
    "w4a4": ENTRIES["w4a4"],
    "w4a4 gptq and asymmetric": ENTRIES["w4a4-gptq"],
    "w4a8 gptq": {**_bits(4, 8), "weights": GPTQ},
    "w8a8 per tensor": {**_bits(8, 8), "weights": {"bits": 8, "granularity": "per_tensor", "clip": "mse"}},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", INTEGER)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_integer_engine_computes_what_is_simulated_to_the_last_bit(
    kind: str, name: str, dtype: torch.dtype
) -> None:
    model = _model(kind)
    module: nn.Module = model
    module.to(dtype)
    weights, stored = {}, {}
    with quantized(model, Scheme.of("any", INTEGER[name]), WINDOWS, {}) as layers:
        simulated = _logits(model)
        for own, layer in layers.items():
            weights[own], stored[own] = _weight(layer), layer.stored_bytes
    with quantized(model, Scheme.of("any", {**INTEGER[name], "engine": "integer"}), WINDOWS, {}) as layers:
        assert all(isinstance(layer.module, IntegerLinear) for layer in layers.values())
        assert all(layer.kernel for layer in layers.values())
        assert torch.equal(_logits(model), simulated)
    assert not torch.equal(_logits(model), simulated)
    bits = INTEGER[name]["weights"]["bits"]
    for own, float_layer in quantizable_layers(model).items():
        weight = weight_matrix(float_layer)
        assert weights[own].dtype == dtype
        if "gptq" not in name:
            grid = IntegerGrid(**INTEGER[name]["weights"])
            assert torch.equal(weights[own], grid.round_trip(weight))
        scales = 1 if name == "w8a8 per tensor" else len(weight)
        assert stored[own] == weight.numel() * bits // 8 + 4 * scales


@pytest.mark.parametrize("kernel", [*exact_kernels(torch.device("cpu")), FALLBACK], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@torch.no_grad()
def test_layers_of_the_integer_engine_are_bit_by_bit_the_simulated_ones_whichever_kernel_is_the_fastest(
    kind: str, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(kind)
    monkeypatch.setattr(integer, "fastest_kernel", lambda *_: kernel)
    for name in ("w8a8", "w4a8", "w4a4", "w8a8 asymmetric", "w8a8 per tensor"):
        simulated, on_codes = (Scheme.of("any", {**INTEGER[name], **more}) for more in ({}, {"engine": "integer"}))
        for layer in list(quantizable_layers(model).values())[:4]:
            values = torch.randn(2, 9, weight_matrix(layer).shape[1], generator=torch.Generator().manual_seed(0))
            expected = rounded_layer(layer, simulated)(values)
            assert torch.equal(rounded_layer(layer, on_codes)(values), expected)


@pytest.mark.parametrize(
    "weights",
    [
        {"bits": 8, "granularity": "per_channel"},
        {"bits": 4, "granularity": "per_channel", "rounding": "gptq"},
        {"bits": 4, "granularity": "per_group", "group_size": 16, "symmetric": False, "clip": "mse"},
    ],
)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_packed_weights_are_the_very_ones_that_are_simulated(kind: str, weights: Entry) -> None:
    model = _model(kind)
    simulated = _rounded_logits(model, Scheme.of("any", {"weights": weights}), WINDOWS)
    scheme = Scheme.of("any", {"weights": weights, "engine": "integer"})
    with quantized(model, scheme, WINDOWS, {}) as layers:
        assert all(isinstance(layer.module, PackedLinear) for layer in layers.values())
        torch.testing.assert_close(_logits(model), simulated, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("format", "error"), [("llm_int8", 0.3), ("nf4", 1.0)])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_the_library_bitsandbytes_rounds_a_whole_model(kind: str, format: str, error: float) -> None:
    if reason := reason_not_available(torch.device("cpu")):
        pytest.skip(reason)
    model = _model(kind)
    before = Trace(model)
    expected = [name for name in quantizable_layers(model) if ".1." not in name]
    entry = {"weights": {"format": format}, "engine": "bitsandbytes", "keep": ["*.1.*"]}
    with quantized(model, Scheme.of("any", entry), [], {}) as layers:
        assert list(layers) == expected
        for layer in layers.values():
            assert isinstance(layer.module, BitsandbytesLinear)
            assert math.isnan(layer.weight_sqnr_db)
            assert layer.inputs is None
            assert (layer.kernel or "").startswith("bitsandbytes")
            assert layer.stored_bytes < weight_matrix(layer.reference).nbytes
        assert 1e-4 < relative_error(_logits(model), before.logits) < error
    before.check(model)


@pytest.mark.parametrize("name", ["w8a8", "w4a8-gptq-static", "w8a8-integer", "w4-integer", "nvfp4"])
def test_a_model_in_bfloat16_is_rounded_and_stays_in_bfloat16(name: str) -> None:
    model = tiny_model("llama", outliers=False)
    module: nn.Module = model
    module.to(torch.bfloat16)
    exact = _logits(model)
    rounded = _rounded_logits(model, _scheme(name), WINDOWS)
    assert rounded.dtype == torch.bfloat16
    assert 0 < relative_error(rounded, exact) < 0.6


# --- outliers ----------------------------------------------------------------------------------------------------


def _decomposed(values: Tensor, bits: int, threshold: float) -> Tensor:
    """The oracle: channels with an outlier anywhere as they are, the rows of the other channels rounded, in numpy."""
    rows = values.flatten(end_dim=-2).numpy()
    outlier = (np.abs(rows) >= threshold).any(axis=0)
    result = rows.copy()
    rest = torch.from_numpy(np.ascontiguousarray(rows[:, ~outlier]))
    if rest.shape[1]:
        result[:, ~outlier] = _round_rows(rest, bits).numpy()
    return torch.from_numpy(result).reshape(values.shape)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.no_grad()
def test_outlier_channels_are_multiplied_in_float_and_the_others_rounded(kind: str) -> None:
    model = _model(kind)
    copied = copy.deepcopy(model)
    for layer in quantizable_layers(copied).values():
        weight = layer.weight.data.T if isinstance(layer, Conv1D) else layer.weight.data
        weight.copy_(_round_rows(weight.contiguous(), 8))
        layer.register_forward_pre_hook(lambda _, arguments: (_decomposed(arguments[0], 8, 6.0),))
    with quantized(model, _scheme("w8a8-outliers"), [], {}) as layers:
        found = _logits(model)
        counters = {id(layer.inputs): layer.inputs for layer in layers.values()}
    expected = _logits(copied)
    assert relative_error(found, expected) < 0.02 * relative_error(_logits(model), expected) + 1e-6
    [counter] = counters.values()
    assert isinstance(counter, ActivationRounder)
    assert 0 < counter.outliers < counter.channels


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma", "gpt2", "opt"])
@pytest.mark.parametrize("seed", [0, 1])
def test_taking_planted_outliers_out_beats_plain_rounding(kind: str, seed: int) -> None:
    model = _model(kind, seed=seed)
    exact = _logits(model)

    def error(**activations: float) -> float:
        grids = _bits(16, 8)  # such fine weights that inputs are all that is rounded
        grids["activations"] |= activations
        return relative_error(_rounded_logits(model, Scheme.of("any", grids)), exact)

    assert error(outlier_threshold=6.0) < 0.6 * error()
    assert error(outlier_threshold=1e9) == error(), "nothing is beyond this threshold"


# --- with smoothing and rotation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gemma", "gpt2"])
def test_smoothing_and_rounding_nest_and_come_apart_again(kind: str) -> None:
    model = tiny_model(kind)
    sites, _ = find_sites(model)
    factors = {
        site.name: torch.linspace(0.5, 4, 32).roll(number) for number, site in enumerate(sites)
    }  # of 32 channels each
    before = Trace(model)
    with folded(folding_changes(model, sites, factors)):
        within = Trace(model)
        reader = sites[0].layers[0]
        layer = linear_layers(model)[reader]
        weight = (layer.weight.T if isinstance(layer, Conv1D) else layer.weight).contiguous()
        with quantized(model, _scheme("w8a8"), [], {}) as layers:
            assert torch.equal(_weight(layers[reader]), _round_rows(weight, 8))
        within.check(model)
    before.check(model)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_a_rotated_model_in_float_is_the_model(kind: str) -> None:
    model = _model(kind)
    before, paths = Trace(model), find_paths(model)
    rotations = online_rotations(model, paths, 3)
    with folded(rotation_changes(model, paths, 3)):
        within = Trace(model)
        with quantized(model, Scheme.of("fp-rotated", {"rotation": {"seed": 3}}), [], rotations) as layers:
            assert layers == {}
            assert {name for name, part in model.named_modules() if isinstance(part, RotatedInput)} == set(rotations)
            assert relative_error(_logits(model), before.logits) < 1e-4
        within.check(model)
    before.check(model)


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("name", ["w8a8-static", "w4a4-gptq", "w4a8-gptq-static"])
@torch.no_grad()
def test_calibration_sees_inputs_that_are_rotated_as_they_come(name: str) -> None:
    model, scheme = tiny_model("llama", outliers=False), _scheme(name)
    paths = find_paths(model)
    rotations = online_rotations(model, paths, 0)
    with folded(rotation_changes(model, paths, 0)):
        expected = _rounded_by_hand(model, scheme, WINDOWS, rotations)
        with quantized(model, scheme, WINDOWS, rotations) as layers:
            found = _logits(model)
            for own in rotations:
                weight = quantizable_layers(expected)[own].weight
                off = (_weight(layers[own]) - weight).abs() > 1e-5 * weight.abs().max()
                assert float(off.float().mean()) <= 0.02
    assert relative_error(found, _logits(expected)) < 0.25 * relative_error(_logits(model), _logits(expected))


def test_layers_that_are_kept_read_rotated_inputs_all_the_same() -> None:
    model = tiny_model("llama")
    before, paths = Trace(model), find_paths(model)
    rotations = online_rotations(model, paths, 0)
    kept = _scheme("w8a8", keep=["*.down_proj"])
    with folded(rotation_changes(model, paths, 0)):
        within = Trace(model)
        with quantized(model, kept, [], rotations) as layers:
            assert not set(layers) & set(rotations)
            assert relative_error(_logits(model), before.logits) < 0.1
        within.check(model)
    before.check(model)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("engine", ["simulated", "integer"])
def test_rotation_undoes_what_planted_outliers_cost(kind: str, engine: str) -> None:
    model = _model(kind)
    exact, paths = _logits(model), find_paths(model)
    scheme = Scheme.of("w8a8", _bits(8, 8, engine=engine))
    plain = relative_error(_rounded_logits(model, scheme), exact)
    with folded(rotation_changes(model, paths, 0)):
        rotated = relative_error(_rounded_logits(model, scheme, (), online_rotations(model, paths, 0)), exact)
    assert rotated < 0.7 * plain


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@torch.no_grad()
def test_a_layer_rounded_alone_is_the_one_of_the_rounded_model(kind: str) -> None:
    model = _model(kind)
    grids: list[Grid] = []
    for name in ("w4a4", "w8a8-outliers", "nvfp4", "w8a8-integer"):
        scheme = _scheme(name)
        assert scheme.weights is not None
        grids.append(scheme.weights.grid)
        with quantized(model, scheme, [], {}) as layers:
            own, rounded = list(layers.items())[2]
            values = torch.randn(2, 5, weight_matrix(rounded.reference).shape[1])
            assert torch.equal(rounded_layer(rounded.reference, scheme)(values), rounded.module(values))
        assert quantizable_layers(model)[own] is rounded.reference
    assert len(set(grids)) == 3


def test_a_model_that_packs_its_experts_is_refused_instead_of_left_in_float() -> None:
    model = tiny_model("mixtral")
    before = Trace(model)
    refusal = pytest.raises(InferometerError, match=r"packs several matrices into model\.layers\.0\.mlp\.experts")
    with refusal, quantized(model, _scheme("w8a8"), [], {}):
        pass
    before.check(model)
