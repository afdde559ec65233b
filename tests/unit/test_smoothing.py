"""Smoothing: where it is folded, by how much, and that the float model stays what it was."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from inferometer.calibration.calibrate import calibrate
from inferometer.errors import InferometerError
from inferometer.models import linear_layers, weight_matrix
from inferometer.quantization import Grid
from inferometer.schemes import Scheme, rounded
from inferometer.smoothing.chapter import activation_absmax, smooth
from inferometer.smoothing.fold import smoothed, smoothing_factors
from inferometer.smoothing.proof import TOLERANCE, prove_equivalence, relative_error
from inferometer.smoothing.sites import Refusal, Site, find_sites, gain_offset
from inferometer.smoothing.stored import factors_of, sites_of
from inferometer.smoothing.tables import SCALES, SITES
from inferometer.tables import read_table, write_table
from tests.tiny import COMMON, CONFIGS, LLAMA_SHAPE, tiny_model

ARCHITECTURES = [kind for kind in CONFIGS if kind != "mixtral"]
LAYERS = 3
CHANNELS = 32

Array = NDArray[np.float32]


def _windows(count: int, *, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(64, (1, 40), generator=generator) for _ in range(count)]


PROOF_TOKENS = _windows(1, seed=9)[0]

GATED = ("mlp.gate_proj", "mlp.up_proj")
SPLIT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")

# What the SmoothQuant reference folds for each family it knows, and what it would for the others: the norms of one
# decoder layer with the layers that read them.
REFERENCE: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "llama": ("model.layers", {"input_layernorm": SPLIT, "post_attention_layernorm": GATED}),
    "qwen2": ("model.layers", {"input_layernorm": SPLIT, "post_attention_layernorm": GATED}),
    "gemma": ("model.layers", {"input_layernorm": SPLIT, "post_attention_layernorm": GATED}),
    "gemma2": ("model.layers", {"input_layernorm": SPLIT, "pre_feedforward_layernorm": GATED}),
    "gpt2": ("transformer.h", {"ln_1": ("attn.c_attn",), "ln_2": ("mlp.c_fc",)}),
    "opt": ("model.decoder.layers", {"self_attn_layer_norm": SPLIT, "final_layer_norm": ("fc1",)}),
    "gpt_neox": (
        "gpt_neox.layers",
        {"input_layernorm": ("attention.query_key_value",), "post_attention_layernorm": ("mlp.dense_h_to_4h",)},
    ),
    "bloom": (
        "transformer.h",
        {"input_layernorm": ("self_attention.query_key_value",), "post_attention_layernorm": ("mlp.dense_h_to_4h",)},
    ),
}


def _model(model_type: str, **fields: Any) -> PreTrainedModel:
    """A tiny model of an architecture that `tests.tiny` does not list."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**COMMON, **fields})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.config.use_cache = False
    module: nn.Module = model
    module.requires_grad_(False).eval()
    return model


def _extreme_factors(model: PreTrainedModel, sites: list[Site], *, seed: int = 0) -> dict[str, Tensor]:
    """Random factors over six orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    return {site.name: 10.0 ** (6 * torch.rand(CHANNELS, generator=generator) - 3) for site in sites}


@torch.no_grad()
def _logits(model: PreTrainedModel, tokens: Tensor = PROOF_TOKENS) -> Tensor:
    logits: Tensor = model(tokens).logits
    return logits


def _reasons(refusals: list[Refusal]) -> dict[str, str]:
    return {refusal.name: refusal.reason for refusal in refusals}


def _site(model: PreTrainedModel, name: str) -> Site:
    [site] = [site for site in find_sites(model)[0] if site.name == name]
    return site


# --- where -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_sites_are_the_norms_that_feed_linear_layers_with_the_offset_of_the_family(kind: str) -> None:
    stack, norms = REFERENCE[kind]
    offset = 1.0 if kind.startswith("gemma") else 0.0
    expected = {
        Site(f"{stack}.{layer}.{norm}", tuple(f"{stack}.{layer}.{reader}" for reader in readers), offset)
        for layer in range(LAYERS)
        for norm, readers in norms.items()
    }
    sites, refusals = find_sites(tiny_model(kind))
    assert set(sites) == expected
    assert len(sites) == len(expected)
    assert not {site.name for site in sites} & set(_reasons(refusals))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_norm_before_the_head_is_refused_since_the_head_is_not_rounded(kind: str) -> None:
    reasons = _reasons(find_sites(tiny_model(kind))[1])
    assert list(reasons.values()).count("it feeds lm_head, which is not rounded") == 1


def test_norms_of_gemma2_that_feed_the_residual_are_refused() -> None:
    reasons = _reasons(find_sites(tiny_model("gemma2"))[1])
    for layer in range(LAYERS):
        for norm in ("post_attention_layernorm", "post_feedforward_layernorm"):
            assert reasons[f"model.layers.{layer}.{norm}"] == "its output is also read by Tensor.add"


ROPE = "its output is also read by Tensor.mul, Tensor.neg, cat"
RESIDUAL = "its output is also read by Tensor.add"


@pytest.mark.parametrize(
    ("model_type", "fields", "readers", "offset", "refused"),
    [
        pytest.param(
            "qwen3",
            {**LLAMA_SHAPE, "head_dim": 8},
            {"input_layernorm": SPLIT, "post_attention_layernorm": GATED},
            0.0,
            {"self_attn.q_norm": ROPE, "self_attn.k_norm": ROPE},
            id="norms of queries and keys are refused",
        ),
        pytest.param("phi", LLAMA_SHAPE, {"input_layernorm": (*SPLIT, "mlp.fc1")}, 0.0, {}, id="one norm feeds both"),
        pytest.param(
            "nemotron",
            LLAMA_SHAPE,
            {"input_layernorm": SPLIT, "post_attention_layernorm": ("mlp.up_proj",)},
            1.0,
            {},
            id="offset and bias",
        ),
        pytest.param("cohere", LLAMA_SHAPE, {"input_layernorm": (*SPLIT, *GATED)}, 0.0, {}, id="parallel without bias"),
        pytest.param(
            "olmo2",
            LLAMA_SHAPE,
            {},
            0.0,
            {
                "post_attention_layernorm": RESIDUAL,
                "post_feedforward_layernorm": RESIDUAL,
                "self_attn.q_norm": ROPE,
                "self_attn.k_norm": ROPE,
            },
            id="norms behind the layers only",
        ),
    ],
)
def test_architectures_that_no_code_names_are_understood(
    model_type: str,
    fields: Mapping[str, Any],
    readers: Mapping[str, tuple[str, ...]],
    offset: float,
    refused: Mapping[str, str],
) -> None:
    model = _model(model_type, **fields)
    sites, refusals = find_sites(model)
    first = "model.layers.0."
    assert {site for site in sites if site.name.startswith(first)} == {
        Site(first + norm, tuple(first + reader for reader in of_norm), offset) for norm, of_norm in readers.items()
    }
    assert len(sites) == LAYERS * len(readers)
    reasons = {name: reason for name, reason in _reasons(refusals).items() if name.startswith(first)}
    assert reasons == {first + name: reason for name, reason in refused.items()}
    if sites:
        assert prove_equivalence(model, sites, _extreme_factors(model, sites), PROOF_TOKENS) <= TOLERANCE


@pytest.mark.parametrize(
    ("model_type", "fields", "reason"),
    [
        ("bloom", {**CONFIGS["bloom"], "apply_residual_connection_post_layernorm": True}, "also read by Tensor.add"),
        ("opt", {**CONFIGS["opt"], "do_layer_norm_before": False}, "also read by Tensor.add"),
        ("falcon", {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}, "read by Tensor.matmul"),
    ],
)
def test_norms_that_something_else_reads_are_refused_with_what_reads_them(
    model_type: str, fields: dict[str, Any], reason: str
) -> None:
    sites, refusals = find_sites(_model(model_type, **{k: v for k, v in fields.items() if k != "model_type"}))
    assert sites == []
    assert any(reason in text for text in _reasons(refusals).values())


class _Routed(nn.Module):
    """A mixture of experts as unpacked linear layers: each token goes to the expert that a router picks."""

    def __init__(self, mlp: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.router = nn.Linear(CHANNELS, 2, bias=False)
        self.experts = nn.ModuleList([mlp, other])

    def forward(self, values: Tensor) -> Tensor:
        rows = values.view(-1, CHANNELS)
        choice = self.router(rows).argmax(dim=-1)
        result = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            result[choice == number] = expert(rows[choice == number])
        return result.view(values.shape)


def test_of_a_mixture_of_experts_only_the_norm_before_attention_is_folded() -> None:
    model, donor = tiny_model("llama"), tiny_model("llama", seed=5)
    torch.manual_seed(0)
    for layer, other in zip(model.model.layers, donor.model.layers, strict=True):
        layer.mlp = _Routed(layer.mlp, other.mlp).requires_grad_(False)
    sites, refusals = find_sites(model)
    assert [site.name for site in sites] == [f"model.layers.{layer}.input_layernorm" for layer in range(LAYERS)]
    reasons = _reasons(refusals)
    for layer in range(LAYERS):
        assert reasons[f"model.layers.{layer}.post_attention_layernorm"].startswith("its output is also read by ")
    assert prove_equivalence(model, sites, _extreme_factors(model, sites), PROOF_TOKENS) <= TOLERANCE


def test_a_mixture_that_packs_its_experts_is_refused_whole() -> None:
    with pytest.raises(InferometerError, match=r"packs several matrices into model\.layers\.0\.mlp\.experts"):
        find_sites(tiny_model("mixtral"))


class _Wrapped(nn.Module):
    """An MLP whose input or output something is done to."""

    def __init__(self, mlp: nn.Module, change: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.mlp = mlp
        self._change = change

    def forward(self, values: Tensor) -> Tensor:
        return self._change(self.mlp, values)


def _in_place(mlp: nn.Module, values: Tensor) -> Tensor:
    result: Tensor = mlp(values)
    values[..., :4].mul_(2.0)
    return result


@pytest.mark.parametrize(
    ("change", "reader"),
    [
        pytest.param(lambda mlp, values: mlp(values) + values, "Tensor.add", id="a residual"),
        pytest.param(lambda mlp, values: mlp(values * 2), "Tensor.mul", id="scaled first"),
        pytest.param(lambda mlp, values: mlp(values.float()[..., :] + 0), "Tensor.add", id="through views"),
        pytest.param(lambda mlp, values: mlp(values) * values.mean(), "Tensor.mean", id="a mean"),
        pytest.param(lambda mlp, values: mlp(torch.nn.functional.silu(values)), "silu", id="an activation"),
        pytest.param(_in_place, "Tensor.mul_", id="changed in place"),
    ],
)
def test_a_norm_is_refused_whatever_else_its_output_meets(
    change: Callable[[nn.Module, Tensor], Tensor], reader: str
) -> None:
    model = tiny_model("llama")
    layer = model.model.layers[1]
    layer.mlp = _Wrapped(layer.mlp, change)
    sites, refusals = find_sites(model)
    name = "model.layers.1.post_attention_layernorm"
    assert len(sites) == 2 * LAYERS - 1
    assert reader in _reasons(refusals)[name]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda mlp, values: mlp(values.view(-1, CHANNELS)).view(values.shape), id="reshaped"),
        pytest.param(lambda mlp, values: mlp(values.transpose(0, 1)).transpose(0, 1), id="transposed"),
        pytest.param(lambda mlp, values: mlp(torch.dropout(values, 0.5, train=False)), id="dropped out, in evaluation"),
    ],
)
def test_changes_of_view_are_let_pass(change: Callable[[nn.Module, Tensor], Tensor]) -> None:
    model = tiny_model("llama")
    layer = model.model.layers[1]
    layer.mlp = _Wrapped(layer.mlp, change)
    sites, _ = find_sites(model)
    assert len(sites) == 2 * LAYERS
    assert prove_equivalence(model, sites, _extreme_factors(model, sites), PROOF_TOKENS) <= TOLERANCE


class _Halves(nn.Module):
    """Two linear layers that read one half of the channels each."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Linear(CHANNELS // 2, CHANNELS) for _ in range(2))

    def forward(self, values: Tensor) -> Tensor:
        left, right = values.chunk(2, dim=-1)
        result: Tensor = self.left(left) + self.right(right)
        return result


def test_a_norm_whose_readers_see_a_part_of_it_is_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp = _Halves().requires_grad_(False)
    reasons = _reasons(find_sites(model)[1])
    name = "model.layers.1.post_attention_layernorm"
    halves = "model.layers.1.mlp.left, model.layers.1.mlp.right"
    assert reasons[name] == f"{halves} reads a part of its output only"


class _Twice(nn.Module):
    """A linear layer that reads the norm's output and its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.layer(self.layer(values))
        return result


def test_a_norm_whose_reader_also_reads_something_else_is_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp = _Twice().requires_grad_(False)
    reasons = _reasons(find_sites(model)[1])
    name = "model.layers.1.post_attention_layernorm"
    assert reasons[name] == "model.layers.1.mlp.layer also reads something else"


def test_norms_that_share_a_reader_are_refused() -> None:
    model = tiny_model("llama")
    shared = model.model.layers[0].mlp
    model.model.layers[2].mlp = shared
    reasons = _reasons(find_sites(model)[1])
    for layer in (0, 2):
        assert "also reads something else" in reasons[f"model.layers.{layer}.post_attention_layernorm"]


def test_readers_with_tied_weights_are_refused() -> None:
    model = tiny_model("llama")
    attention, other = (model.model.layers[layer].self_attn for layer in (0, 2))
    attention.k_proj.weight = attention.v_proj.weight
    other.q_proj.weight = model.model.layers[1].self_attn.q_proj.weight
    sites, refusals = find_sites(model)
    reasons = _reasons(refusals)
    for layer in range(LAYERS):
        assert "shares its weight with another module" in reasons[f"model.layers.{layer}.input_layernorm"]
    assert len(sites) == LAYERS


def test_norms_with_tied_weights_are_refused() -> None:
    model = tiny_model("llama")
    layer = model.model.layers[0]
    layer.input_layernorm.weight = layer.post_attention_layernorm.weight
    reasons = _reasons(find_sites(model)[1])
    for norm in ("input_layernorm", "post_attention_layernorm"):
        assert reasons[f"model.layers.0.{norm}"] == "it shares its weight with another module"


def test_a_norm_that_never_runs_is_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[1].spare = nn.LayerNorm(CHANNELS)
    assert _reasons(find_sites(model)[1])["model.layers.1.spare"] == "it does not run in a forward pass"


class _Norm(nn.Module):
    """A norm with its own idea of what its weight does."""

    def __init__(self, apply: Callable[[Tensor, Tensor], Tensor], *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CHANNELS, generator=torch.Generator().manual_seed(1)))
        self.bias = nn.Parameter(torch.full((CHANNELS,), 0.7)) if bias else None
        self._apply_weight = apply

    def forward(self, values: Tensor) -> Tensor:
        normal = values * torch.rsqrt(values.square().mean(dim=-1, keepdim=True) + 1e-6)
        result = self._apply_weight(normal, self.weight)
        return result if self.bias is None else result + self.bias


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("apply", "offset"),
    [
        (lambda normal, weight: normal * weight, 0.0),
        (lambda normal, weight: normal * (1 + weight), 1.0),
        (lambda normal, weight: normal * (weight - 2.5), -2.5),
        (lambda normal, weight: normal * weight.exp(), None),
        (lambda normal, weight: normal * weight.square(), None),
        (lambda normal, weight: normal + weight, None),
        (lambda normal, weight: normal, None),
        (lambda normal, weight: normal * weight + normal.square(), None),
    ],
)
def test_the_offset_is_found_by_asking_the_norm(
    apply: Callable[[Tensor, Tensor], Tensor], offset: float | None, *, bias: bool
) -> None:
    norm = _Norm(apply, bias=bias)
    weight = norm.weight.clone()
    assert gain_offset(norm) == offset
    assert torch.equal(norm.weight, weight)


@pytest.mark.parametrize("offset", [0.5, -2.5])
def test_a_norm_with_any_offset_can_be_folded(offset: float) -> None:
    model = tiny_model("llama")
    model.model.layers[1].input_layernorm = _Norm(lambda normal, weight: normal * (weight + offset)).requires_grad_(
        False
    )
    site = _site(model, "model.layers.1.input_layernorm")
    assert site.offset == offset
    assert prove_equivalence(model, [site], _extreme_factors(model, [site]), PROOF_TOKENS) <= TOLERANCE


def test_a_norm_that_does_not_multiply_by_its_weight_is_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[1].input_layernorm = _Norm(lambda normal, weight: normal * weight.exp()).requires_grad_(False)
    reasons = _reasons(find_sites(model)[1])
    assert reasons["model.layers.1.input_layernorm"] == "it does not multiply by its weight"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_looking_for_sites_leaves_the_model_alone(kind: str) -> None:
    model = tiny_model(kind)
    before, state = _logits(model), {name: value.clone() for name, value in model.state_dict().items()}
    assert find_sites(model) == find_sites(model)
    assert torch.equal(_logits(model), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# --- by how much -----------------------------------------------------------------------------------------------


def _input_absmax(model: PreTrainedModel, windows: list[Tensor]) -> dict[str, Array]:
    """The oracle: the largest input magnitude of every channel, by hooks of its own."""
    found: dict[str, Array] = {}

    def keeper(name: str) -> Any:
        def keep(_layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            largest = arguments[0].abs().reshape(-1, arguments[0].shape[-1]).amax(dim=0).numpy()
            found[name] = np.maximum(found[name], largest) if name in found else largest

        return keep

    handles = [layer.register_forward_pre_hook(keeper(name)) for name, layer in linear_layers(model).items()]
    for window in windows:
        _logits(model, window)
    for handle in handles:
        handle.remove()
    return found


def _calibration(model: PreTrainedModel, windows: list[Tensor]) -> pd.DataFrame:
    """The ACTIVATIONS table of a model."""
    return calibrate(model, windows, [0]).activations


def _reference_factors(absmax: Array, weights: list[Array], alpha: float) -> Array:
    """The oracle: the reference's formula, in numpy and double precision."""
    largest = np.concatenate([np.abs(weight) for weight in weights], axis=0).max(axis=0).clip(min=1e-5)
    factors: Array = (absmax.astype(np.float64) ** alpha / largest.astype(np.float64) ** (1 - alpha)).clip(min=1e-5)
    return factors


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.85, 1.0])
@pytest.mark.parametrize("kind", ["llama", "gemma", "gpt2"])
def test_factors_are_those_of_the_smoothquant_reference(kind: str, alpha: float) -> None:
    model, windows = tiny_model(kind), _windows(3)
    scales, _ = smooth(model, _calibration(model, windows), alpha, PROOF_TOKENS)
    found, absmax = factors_of(scales), _input_absmax(model, windows)
    stack, norms = REFERENCE[kind]
    assert len(found) == LAYERS * len(norms)
    for layer in range(LAYERS):
        for norm, readers in norms.items():
            names = [f"{stack}.{layer}.{reader}" for reader in readers]
            parameters = [model.get_parameter(f"{name}.weight").numpy() for name in names]
            weights = [parameter.T if kind == "gpt2" else parameter for parameter in parameters]
            expected = _reference_factors(absmax[names[0]], weights, alpha)
            np.testing.assert_allclose(found[f"{stack}.{layer}.{norm}"].numpy(), expected, rtol=1e-5)


def test_factors_are_known_by_hand() -> None:
    absmax = torch.tensor([16.0, 4.0, 0.0, 1.0])
    weights = [torch.tensor([[1.0, -4.0, 1.0, 0.0]]), torch.tensor([[-4.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])]
    factors = smoothing_factors(absmax, weights, 0.5)
    assert factors.tolist() == pytest.approx([2.0, 1.0, 1e-5, 10**2.5])
    assert smoothing_factors(absmax, weights, 1.0).tolist() == pytest.approx([16.0, 4.0, 1e-5, 1.0])
    assert smoothing_factors(absmax, weights, 0.0).tolist() == pytest.approx([0.25, 0.25, 1.0, 1e5])


POSITIVE = st.floats(2**-10, 2**10, width=32)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=6))
def test_at_half_strength_activation_and_weight_end_up_equally_large(channels: list[tuple[float, float]]) -> None:
    activation, weight = (torch.tensor(values) for values in zip(*channels, strict=True))
    factors = smoothing_factors(activation, [weight[None]], 0.5)
    torch.testing.assert_close(activation / factors, weight * factors, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_gains_are_divided_and_input_channels_multiplied(kind: str) -> None:
    model = tiny_model(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sites, _ = find_sites(model)
    factors = _extreme_factors(model, sites)
    with smoothed(model, sites, factors):
        after = {name: value.clone() for name, value in model.state_dict().items()}
    for site in sites:
        factor, offset = factors[site.name], 1.0 if kind.startswith("gemma") else 0.0
        gain = f"{site.name}.weight"
        torch.testing.assert_close(after[gain] + offset, (before[gain] + offset) / factor, rtol=1e-4, atol=1e-6)
        if f"{site.name}.bias" in before:
            torch.testing.assert_close(after[f"{site.name}.bias"], before[f"{site.name}.bias"] / factor)
        for reader in site.layers:
            spread = factor[:, None] if kind == "gpt2" else factor[None, :]
            torch.testing.assert_close(after[f"{reader}.weight"], before[f"{reader}.weight"] * spread)
            assert torch.equal(after.get(f"{reader}.bias", torch.ones(1)), before.get(f"{reader}.bias", torch.ones(1)))
    touched = {f"{site.name}.{part}" for site in sites for part in ("weight", "bias")}
    touched |= {f"{reader}.weight" for site in sites for reader in site.layers}
    assert all(torch.equal(after[name], value) for name, value in before.items() if name not in touched)


# --- the float model stays what it was ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_extreme_factors_leave_the_logits_of_every_architecture_what_they_were(kind: str) -> None:
    model = tiny_model(kind)
    sites, _ = find_sites(model)
    before = _logits(model)
    for seed in range(3):
        factors = _extreme_factors(model, sites, seed=seed)
        with smoothed(model, sites, factors):
            after = _logits(model)
        error = float((after - before).double().norm() / before.double().norm())
        assert 0 < error <= 1e-4
        assert prove_equivalence(model, sites, factors, PROOF_TOKENS) == pytest.approx(error, rel=1e-3)


def test_the_relative_error_is_that_of_norms() -> None:
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_error(torch.tensor([1.0]), torch.tensor([1.0])) == 0


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_smoothing_leaves_no_trace_also_when_the_block_fails(kind: str) -> None:
    model = tiny_model(kind)
    sites, _ = find_sites(model)
    parameters = dict(model.named_parameters())
    values, before = {name: value.clone() for name, value in parameters.items()}, _logits(model)

    def check() -> None:
        assert list(dict(model.named_parameters())) == list(parameters)
        assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())
        assert all(torch.equal(parameters[name], value) for name, value in values.items())
        assert torch.equal(_logits(model), before)

    with smoothed(model, sites, _extreme_factors(model, sites)):
        assert model.get_parameter(f"{sites[0].name}.weight") is not parameters[f"{sites[0].name}.weight"]
    check()
    with pytest.raises(RuntimeError, match="on purpose"), smoothed(model, sites, _extreme_factors(model, sites)):
        raise RuntimeError("on purpose")
    check()
    factors = _extreme_factors(model, sites)
    del factors[sites[-1].name]
    with pytest.raises(KeyError), smoothed(model, sites, factors):
        pass
    check()


def _replaced(sites: list[Site], faulty: Site) -> list[Site]:
    return [faulty if site.name == faulty.name else site for site in sites]


def _check_that_the_proof_names(model: PreTrainedModel, sites: list[Site], name: str) -> None:
    parameters, before = dict(model.named_parameters()), _logits(model)
    with pytest.raises(InferometerError, match=rf"changes the float model at site {name}: relative logit error"):
        prove_equivalence(model, sites, _extreme_factors(model, sites), PROOF_TOKENS)
    assert all(model.get_parameter(key) is parameter for key, parameter in parameters.items())
    assert torch.equal(_logits(model), before)


@pytest.mark.parametrize(("kind", "layer"), [("gemma", 0), ("gemma", 2), ("gemma2", 1)])
def test_a_wrong_offset_is_found_and_named(kind: str, layer: int) -> None:
    model = tiny_model(kind, outliers=False)
    name = f"model.layers.{layer}.input_layernorm"
    site = _site(model, name)
    faulty = _replaced(find_sites(model)[0], Site(name, site.layers, 0.0))
    _check_that_the_proof_names(model, faulty, name)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_reader_that_was_overlooked_is_found_and_its_site_named(kind: str) -> None:
    model = tiny_model(kind)
    sites, _ = find_sites(model)
    victim = sites[2]
    assert victim.layers[1].endswith("k_proj")
    for forgotten in victim.layers:
        rest = tuple(reader for reader in victim.layers if reader != forgotten)
        _check_that_the_proof_names(model, _replaced(sites, Site(victim.name, rest, victim.offset)), victim.name)


def test_a_factor_that_went_twice_into_one_reader_is_found_and_its_site_named() -> None:
    model = tiny_model("llama")
    sites, _ = find_sites(model)
    victim = sites[3]
    doubled = Site(victim.name, (*victim.layers, victim.layers[-1]), victim.offset)
    _check_that_the_proof_names(model, _replaced(sites, doubled), victim.name)


def test_a_single_corrupted_channel_of_one_reader_is_found_and_its_site_named() -> None:
    model = tiny_model("llama")
    sites, _ = find_sites(model)
    victim = sites[4]
    model.set_submodule(victim.layers[2], _Corrupted(linear_layers(model)[victim.layers[2]]))
    assert find_sites(model)[0] == sites
    _check_that_the_proof_names(model, sites, victim.name)


class _Corrupted(nn.Linear):
    """A linear layer whose weight comes out with one column doubled, once it is no longer the one it began with."""

    def __init__(self, layer: nn.Linear | Conv1D) -> None:
        super().__init__(CHANNELS, layer.weight.shape[0], bias=False)
        self.weight = nn.Parameter(layer.weight, requires_grad=False)
        self._own = id(self.weight)

    def forward(self, values: Tensor) -> Tensor:
        if id(self.weight) != self._own:
            self.weight[:, 7] *= 2
        return super().forward(values)


def test_a_norm_that_also_feeds_a_residual_is_found_and_named_where_it_is_folded_all_the_same() -> None:
    model = tiny_model("llama")
    layer = model.model.layers[1]
    name = "model.layers.1.post_attention_layernorm"
    site = _site(model, name)
    layer.mlp = _Wrapped(layer.mlp, lambda mlp, values: mlp(values) + values)
    readers = tuple(reader.replace("mlp.", "mlp.mlp.") for reader in site.layers)
    _check_that_the_proof_names(model, [*find_sites(model)[0], Site(name, readers, 0.0)], name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_factors_that_are_no_numbers_are_found(value: float) -> None:
    model = tiny_model("llama")
    sites, _ = find_sites(model)
    factors = {site.name: torch.ones(CHANNELS) for site in sites}
    factors[sites[1].name][5] = value
    with pytest.raises(InferometerError, match=r"changes the float model at site .*relative logit error nan"):
        prove_equivalence(model, sites, factors, PROOF_TOKENS)


# --- the chapter -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def activations(llama: PreTrainedModel) -> pd.DataFrame:
    return _calibration(llama, _windows(4))


def _errors_at_8_bits(model: PreTrainedModel) -> tuple[float, float]:
    """What W8A8 does to the logits, without and with smoothing."""
    scales, table = smooth(model, _calibration(model, _windows(4)), 0.5, PROOF_TOKENS)
    scheme, exact = Scheme("w8a8", Grid(8, "per_channel"), Grid(8, "per_token")), _logits(model)
    with rounded(model, scheme):
        plain = relative_error(_logits(model), exact)
    with smoothed(model, sites_of(table), factors_of(scales)), rounded(model, scheme):
        return plain, relative_error(_logits(model), exact)


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("seed", [0, 1])
def test_smoothing_undoes_what_planted_outliers_cost(kind: str, seed: int) -> None:
    plain, smooth_error = _errors_at_8_bits(tiny_model(kind, seed=seed))
    assert smooth_error < 0.6 * plain
    harmless, still_harmless = _errors_at_8_bits(tiny_model(kind, seed=seed, outliers=False))
    assert plain > 5 * harmless, "without outliers there is little to undo"
    assert still_harmless < 2 * harmless


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_tables_hold_all_norms_and_bring_back_sites_and_factors(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    sites, refusals = find_sites(model)
    scales, table = smooth(model, _calibration(model, _windows(2)), 0.5, PROOF_TOKENS)
    write_table(SCALES, scales, tmp_path / "scales.parquet")
    write_table(SITES, table, tmp_path / "sites.parquet")
    read_scales, read_sites = (
        read_table(SCALES, tmp_path / "scales.parquet"),
        read_table(SITES, tmp_path / "sites.parquet"),
    )
    assert set(sites_of(read_sites)) == set(sites)
    refused = read_sites[~read_sites["folded"]].set_index("site")["reason"].to_dict()
    assert refused == _reasons(refusals)
    found, expected = factors_of(read_scales), factors_of(scales)
    assert found.keys() == expected.keys() == {site.name for site in sites}
    assert all(torch.equal(found[name], factors) and factors.shape == (CHANNELS,) for name, factors in expected.items())
    [error] = read_sites["logit_error"].unique()
    assert error == pytest.approx(prove_equivalence(model, sites_of(read_sites), found, PROOF_TOKENS), rel=0.5)
    shuffled = factors_of(scales.sample(frac=1, random_state=0))
    assert all(torch.equal(shuffled[name], factors) for name, factors in expected.items())


def test_the_chapter_leaves_the_model_as_it_was(llama: PreTrainedModel, activations: pd.DataFrame) -> None:
    parameters, before = dict(llama.named_parameters()), _logits(llama)
    smooth(llama, activations, 0.5, PROOF_TOKENS)
    assert all(llama.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert torch.equal(_logits(llama), before)


def test_first_tokens_count_towards_the_factors(activations: pd.DataFrame) -> None:
    layer = "model.layers.2.mlp.down_proj"
    first = activations["first_token"] & (activations["layer"] == layer) & (activations["channel"] == 5)
    doctored = activations.assign(absmax=activations["absmax"].where(~first, 1e6)).sample(frac=1, random_state=0)
    before, after = activation_absmax(activations), activation_absmax(doctored)
    assert after[layer][5] == 1e6
    assert torch.equal(
        torch.cat([before[layer][:5], before[layer][6:]]), torch.cat([after[layer][:5], after[layer][6:]])
    )
    assert all(torch.equal(before[name], absmax) for name, absmax in after.items() if name != layer)


@pytest.mark.parametrize(
    "doctored",
    [
        pytest.param(lambda table: table[table["layer"] != "model.layers.0.mlp.up_proj"], id="a layer is missing"),
        pytest.param(lambda table: table[table["channel"] < CHANNELS], id="layers are narrower"),
        pytest.param(
            lambda table: table.assign(layer=table["layer"].str.replace("model.", "transformer.", regex=False)),
            id="layers have other names",
        ),
    ],
)
def test_calibration_of_another_model_is_refused(
    llama: PreTrainedModel, activations: pd.DataFrame, doctored: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    with pytest.raises(InferometerError, match="the calibration tables are of another model"):
        smooth(llama, doctored(activations), 0.5, PROOF_TOKENS)


def test_calibration_of_another_architecture_is_refused(activations: pd.DataFrame) -> None:
    for kind in ("gpt2", "opt"):
        with pytest.raises(InferometerError, match="the calibration tables are of another model"):
            smooth(tiny_model(kind), activations, 0.5, PROOF_TOKENS)


def test_a_model_without_any_site_is_refused_with_the_reasons() -> None:
    model = _model("olmo2", **LLAMA_SHAPE)
    with pytest.raises(InferometerError, match=r"no norm that smoothing can be folded into \(.*read by Tensor\.add"):
        smooth(model, _calibration(model, _windows(1)), 0.5, PROOF_TOKENS)


def test_conv1d_is_read_the_other_way_round() -> None:
    layer = tiny_model("gpt2").get_submodule("transformer.h.0.mlp.c_fc")
    assert isinstance(layer, Conv1D)
    assert weight_matrix(layer).shape[1] == CHANNELS
