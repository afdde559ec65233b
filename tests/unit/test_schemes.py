"""Schemes: what they round, and that a model comes back from them exactly as it was."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from inferometer.errors import InferometerError
from inferometer.models import linear_layers, quantizable_layers
from inferometer.quantization import Grid, SimulatedLinear
from inferometer.schemes import Scheme, rounded
from inferometer.smoothing.fold import smoothed
from inferometer.smoothing.sites import find_sites
from tests.tiny import CONFIGS, tiny_model

ARCHITECTURES = [kind for kind in CONFIGS if kind != "mixtral"]
W8A8 = Scheme("w8a8", Grid(8, "per_channel"), Grid(8, "per_token"))
W4A4 = Scheme("w4a4", Grid(4, "per_channel"), Grid(4, "per_token"))
TOKENS = torch.randint(64, (1, 40), generator=torch.Generator().manual_seed(0))

LLAMA_LAYERS = [
    f"model.layers.{layer}.{part}"
    for layer in range(3)
    for part in (
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
]


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    logits: Tensor = model(TOKENS).logits
    return logits


class Trace:
    """All that must be the same afterwards: modules, the tensors themselves, their values, and the logits."""

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
        assert list(now.tensors) == list(self.tensors)
        assert all(now.tensors[name] is tensor for name, tensor in self.tensors.items())
        assert all(torch.equal(now.values[name], value) for name, value in self.values.items())
        assert torch.equal(now.logits, self.logits)


def _round_rows(values: Tensor, bits: int) -> Tensor:
    """The oracle: absmax rounding of every row, in numpy."""
    array = values.numpy()
    absmax = np.maximum(np.abs(array).max(axis=-1, keepdims=True), np.float32(1e-5))
    step = absmax / np.float32(2 ** (bits - 1) - 1)
    return torch.from_numpy(np.rint(array / step) * step)


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return tiny_model("llama")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_model_comes_back_without_a_trace(kind: str) -> None:
    model = tiny_model(kind)
    before = Trace(model)
    with rounded(model, W4A4):
        assert not torch.equal(_logits(model), before.logits)
    before.check(model)


def test_a_model_comes_back_without_a_trace_when_the_block_fails(llama: PreTrainedModel) -> None:
    before = Trace(llama)
    with pytest.raises(RuntimeError, match="on purpose"), rounded(llama, W4A4):
        raise RuntimeError("on purpose")
    before.check(llama)


def test_a_model_comes_back_without_a_trace_when_a_layer_can_not_be_rounded() -> None:
    model = tiny_model("llama")
    before = Trace(model)
    layer = model.get_submodule("model.layers.2.mlp.down_proj")
    weight = layer.weight
    layer.weight = broken = nn.Parameter(torch.empty(0), requires_grad=False)  # the last of all: no largest value
    with pytest.raises(IndexError), rounded(model, W4A4):
        pass
    assert layer.weight is broken
    layer.weight = weight
    before.check(model)


def test_schemes_one_after_another_start_from_the_float_model(llama: PreTrainedModel) -> None:
    alone = {}
    for scheme in (W8A8, W4A4):
        model = tiny_model("llama")
        with rounded(model, scheme):
            alone[scheme.name] = _logits(model)
    for scheme in (W4A4, W8A8, W4A4):
        with rounded(llama, scheme):
            assert torch.equal(_logits(llama), alone[scheme.name])


def test_every_linear_layer_of_a_llama_is_rounded_but_the_head(llama: PreTrainedModel) -> None:
    head = llama.get_output_embeddings()
    with rounded(llama, W8A8):
        assert [name for name, part in llama.named_modules() if isinstance(part, SimulatedLinear)] == LLAMA_LAYERS
        assert llama.get_output_embeddings() is head
        assert list(linear_layers(llama)) == ["lm_head"], "nothing else is left to multiply by"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_is_rounded_is_every_linear_layer_but_the_head(kind: str) -> None:
    model = tiny_model(kind)
    linear = {name for name, part in model.named_modules() if isinstance(part, nn.Linear | Conv1D)}
    head = next(name for name, part in model.named_modules() if part is model.get_output_embeddings())
    assert set(quantizable_layers(model)) == linear - {head}
    with rounded(model, W8A8):
        assert {name for name, part in model.named_modules() if isinstance(part, SimulatedLinear)} == linear - {head}


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_the_logits_are_those_of_a_copy_rounded_by_hand(kind: str, bits: int) -> None:
    model = tiny_model(kind)
    copied = copy.deepcopy(model)
    head = copied.get_output_embeddings()
    for layer in copied.modules():
        if isinstance(layer, nn.Linear | Conv1D) and layer is not head:
            weight = layer.weight.data.T if isinstance(layer, Conv1D) else layer.weight.data
            weight.copy_(_round_rows(weight.contiguous(), bits))
            layer.register_forward_pre_hook(lambda _, arguments: (_round_rows(arguments[0], bits),))
    with rounded(model, Scheme("both", Grid(bits, "per_channel"), Grid(bits, "per_token"))):
        found = _logits(model)
    if kind == "gpt2":  # its Conv1D adds the bias in another order, and a last bit may turn a code
        torch.testing.assert_close(found, _logits(copied), rtol=1e-2, atol=1e-2)
    else:
        assert torch.equal(found, _logits(copied))


def test_a_scheme_without_grids_changes_nothing_at_all(llama: PreTrainedModel) -> None:
    before = Trace(llama)
    with rounded(llama, Scheme("fp", None, None)):
        before.check(llama)
    before.check(llama)


def test_weights_and_activations_can_be_rounded_alone(llama: PreTrainedModel) -> None:
    name = "model.layers.1.mlp.up_proj"
    weight = llama.get_parameter(f"{name}.weight").clone()
    with rounded(llama, Scheme("w4", W4A4.weights, None)):
        layer = llama.get_submodule(name)
        assert isinstance(layer, SimulatedLinear)
        assert layer.activations is None
        assert torch.equal(layer.weight, _round_rows(weight, 4))
    with rounded(llama, Scheme("a4", None, W4A4.activations)):
        assert torch.equal(llama.get_parameter(f"{name}.weight"), weight)
        values = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
        expected = nn.functional.linear(_round_rows(values, 4), weight)
        assert torch.equal(llama.get_submodule(name)(values), expected)


def test_fewer_bits_cost_more(llama: PreTrainedModel) -> None:
    exact = _logits(llama)
    errors = []
    for bits in (16, 12, 8, 6, 4, 2):
        with rounded(llama, Scheme("both", Grid(bits, "per_channel"), Grid(bits, "per_token"))):
            errors.append(float((_logits(llama) - exact).norm() / exact.norm()))
    assert errors == sorted(errors)
    assert errors[0] < 1e-3
    assert errors[-1] > 0.5


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, Scheme("any", None, None)),
        ({"weights": {"bits": 4, "granularity": "per_tensor"}}, Scheme("any", Grid(4, "per_tensor"), None)),
        ({"activations": {"bits": 6, "granularity": "per_token"}}, Scheme("any", None, Grid(6, "per_token"))),
        (
            {
                "weights": {"bits": 8, "granularity": "per_channel"},
                "activations": {"bits": 8, "granularity": "per_token"},
                "smoothing": {"alpha": 0.5},
            },
            Scheme("any", Grid(8, "per_channel"), Grid(8, "per_token")),
        ),
    ],
)
def test_a_scheme_is_what_its_configuration_entry_says(entry: dict[str, Any], expected: Scheme) -> None:
    assert Scheme.of("any", entry) == expected


@pytest.mark.parametrize("kind", ["llama", "gemma", "gpt2"])
def test_smoothing_and_rounding_nest_and_come_apart_again(kind: str) -> None:
    model = tiny_model(kind)
    sites, _ = find_sites(model)
    factors = {
        site.name: torch.linspace(0.5, 4, 32).roll(number) for number, site in enumerate(sites)
    }  # of 32 channels each
    before = Trace(model)
    with smoothed(model, sites, factors):
        within = Trace(model)
        reader = sites[0].layers[0]
        layer = linear_layers(model)[reader]
        weight = (layer.weight.T if isinstance(layer, Conv1D) else layer.weight).contiguous()
        with rounded(model, W8A8):
            assert torch.equal(model.get_parameter(f"{reader}.weight"), _round_rows(weight, 8))
        within.check(model)
    before.check(model)


def test_a_model_that_packs_its_experts_is_refused_instead_of_left_in_float() -> None:
    model = tiny_model("mixtral")
    before = Trace(model)
    refusal = pytest.raises(InferometerError, match=r"packs several matrices into model\.layers\.0\.mlp\.experts")
    with refusal, rounded(model, W8A8):
        pass
    before.check(model)
