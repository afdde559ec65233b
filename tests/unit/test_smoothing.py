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
from inferometer.folding import TOLERANCE, folded, relative_error
from inferometer.models import linear_layers, quantizable_layers, weight_matrix
from inferometer.quantization.grids import IntegerGrid
from inferometer.quantization.model import quantized
from inferometer.schemes import Scheme
from inferometer.smoothing import search as search_module
from inferometer.smoothing.chapter import Smoothing, smooth
from inferometer.smoothing.fold import activation_aware_factors, folding_changes, smoothing_factors
from inferometer.smoothing.producers import find_producers, head_dim_of
from inferometer.smoothing.proof import prove_equivalence
from inferometer.smoothing.search import ALPHAS, chosen_alphas, output_error, sample_inputs, search
from inferometer.smoothing.site import Refusal, Site
from inferometer.smoothing.sites import find_sites, gain_offset
from inferometer.smoothing.stored import factors_of, sites_of
from inferometer.smoothing.tables import ALPHAS as ALPHAS_TABLE
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
W8A8: Mapping[str, Any] = {
    "weights": {"bits": 8, "granularity": "per_channel"},
    "activations": {"bits": 8, "granularity": "per_token"},
}
W4: Mapping[str, Any] = {"weights": {"bits": 4, "granularity": "per_group", "group_size": 16, "symmetric": False}}

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


def _smoothed(
    model: PreTrainedModel, windows: list[Tensor], scheme: Mapping[str, Any] = W8A8, **settings: Any
) -> Smoothing:
    """What the chapter makes of a model."""
    return smooth(model, _calibration(model, windows), Scheme.of("any", scheme), {"alpha": 0.5, **settings}, windows)


def _reference_factors(absmax: Array, weights: list[Array], alpha: float) -> Array:
    """The oracle: the reference's formula, in numpy and double precision."""
    largest = np.concatenate([np.abs(weight) for weight in weights], axis=0).max(axis=0).clip(min=1e-5)
    factors: Array = (absmax.astype(np.float64) ** alpha / largest.astype(np.float64) ** (1 - alpha)).clip(min=1e-5)
    return factors


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.85, 1.0])
@pytest.mark.parametrize("kind", ["llama", "gemma", "gpt2"])
def test_factors_are_those_of_the_smoothquant_reference(kind: str, alpha: float) -> None:
    model, windows = tiny_model(kind), _windows(3)
    found, absmax = factors_of(_smoothed(model, windows, alpha=alpha).scales), _input_absmax(model, windows)
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


@settings(max_examples=50)
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
    with folded(folding_changes(model, sites, factors)):
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
        with folded(folding_changes(model, sites, factors)):
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

    with folded(folding_changes(model, sites, _extreme_factors(model, sites))):
        assert model.get_parameter(f"{sites[0].name}.weight") is not parameters[f"{sites[0].name}.weight"]
    check()
    changes = folding_changes(model, sites, _extreme_factors(model, sites))
    with pytest.raises(RuntimeError, match="on purpose"), folded(changes):
        raise RuntimeError("on purpose")
    check()
    factors = _extreme_factors(model, sites)
    del factors[sites[-1].name]
    with pytest.raises(KeyError), folded(folding_changes(model, sites, factors)):
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


# --- linear layers that outliers can move through ----------------------------------------------------------------


def _with_biases(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with random biases: those of a fresh one are all zero."""
    generator = torch.Generator().manual_seed(3)
    for layer in quantizable_layers(model).values():
        if layer.bias is not None:
            layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator))
    return model


def _other_layers(model: PreTrainedModel) -> list[str]:
    """The layers that read no norm."""
    read = {layer for site in find_sites(model)[0] for layer in site.layers}
    return [name for name in quantizable_layers(model) if name not in read]


GATED_PRODUCERS = {
    "self_attn.v_proj": ("self_attn.o_proj", (0, 16), 8),
    "mlp.up_proj": ("mlp.down_proj", (0, 48), None),
}
PRODUCERS: dict[str, dict[str, tuple[str, tuple[int, int], int | None]]] = {
    "llama": GATED_PRODUCERS,
    "qwen2": GATED_PRODUCERS,
    "gemma": GATED_PRODUCERS,
    "gemma2": GATED_PRODUCERS,
    "gpt2": {"attn.c_attn": ("attn.c_proj", (64, 32), None)},
    "opt": {
        "self_attn.v_proj": ("self_attn.out_proj", (0, 32), None),
        "fc1": ("fc2", (0, 48), None),
    },
    "gpt_neox": {},
    "bloom": {},
}


@pytest.mark.parametrize("outliers", [True, False])
@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.no_grad()
def test_producers_are_the_layers_whose_outputs_reach_another_channel_by_channel(kind: str, outliers: bool) -> None:
    model = _with_biases(tiny_model(kind, outliers=outliers))
    stack, readers = REFERENCE[kind][0], _other_layers(model)
    sites, refusals = find_producers(model, readers)
    assert set(sites) == {
        Site(f"{stack}.{layer}.{name}", (f"{stack}.{layer}.{reader}",), None, rows, head_dim)
        for layer in range(LAYERS)
        for name, (reader, rows, head_dim) in PRODUCERS[kind].items()
    }
    served = {site.layers[0] for site in sites}
    assert _reasons(refusals) == dict.fromkeys(
        [name for name in readers if name not in served],
        "no linear layer before it scales its input channel by channel",
    )
    assert len(refusals) == {"gpt2": 1, "gpt_neox": 2, "bloom": 2}.get(kind, 0) * LAYERS, "GELU, and fused by head"


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if PRODUCERS[kind]])
@torch.no_grad()
def test_extreme_factors_at_producers_leave_the_logits_what_they_were(kind: str) -> None:
    model = _with_biases(tiny_model(kind))
    before = _logits(model)
    producers, _ = find_producers(model, _other_layers(model))
    sites = [*find_sites(model)[0], *producers]
    generator = torch.Generator().manual_seed(0)
    factors = {
        site.name: 10.0 ** (4 * torch.rand(site.rows[1] if site.rows else CHANNELS, generator=generator) - 2)
        for site in sites
    }
    with folded(folding_changes(model, sites, factors)):
        for site in producers:
            weight = weight_matrix(linear_layers(model)[site.name])
            assert not torch.equal(weight, weight_matrix(linear_layers(tiny_model(kind))[site.name]))
        assert 0 < relative_error(_logits(model), before) <= TOLERANCE
    assert prove_equivalence(model, sites, factors, PROOF_TOKENS) <= TOLERANCE
    assert torch.equal(_logits(model), before)


@torch.no_grad()
def test_rows_of_a_producer_are_divided_and_columns_of_its_reader_multiplied_head_by_head() -> None:
    model = _with_biases(tiny_model("qwen2"))
    block = "model.layers.1.self_attn"
    site = Site(f"{block}.v_proj", (f"{block}.o_proj",), None, (0, 16), 8)
    factors = torch.linspace(0.5, 8, 16)
    weight, bias, reader = (
        model.get_parameter(name).clone()
        for name in (f"{block}.v_proj.weight", f"{block}.v_proj.bias", f"{block}.o_proj.weight")
    )
    with folded(folding_changes(model, [site], {site.name: factors})):
        torch.testing.assert_close(model.get_parameter(f"{block}.v_proj.weight"), weight / factors[:, None])
        torch.testing.assert_close(model.get_parameter(f"{block}.v_proj.bias"), bias / factors)
        heads = [factors[:8], factors[:8], factors[8:], factors[8:]]  # two query heads read each head of values
        torch.testing.assert_close(model.get_parameter(f"{block}.o_proj.weight"), reader * torch.cat(heads))


@torch.no_grad()
def test_only_the_values_of_a_fused_projection_are_divided() -> None:
    model = _with_biases(tiny_model("gpt2"))
    name, reader = "transformer.h.2.attn.c_attn", "transformer.h.2.attn.c_proj"
    site = Site(name, (reader,), None, (64, 32))
    before = {key: model.get_parameter(key).clone() for key in (f"{name}.weight", f"{name}.bias", f"{reader}.weight")}
    factors = torch.linspace(0.5, 8, 32)
    with folded(folding_changes(model, [site], {name: factors})):
        weight, bias = model.get_parameter(f"{name}.weight"), model.get_parameter(f"{name}.bias")
        assert torch.equal(weight[:, :64], before[f"{name}.weight"][:, :64])
        assert torch.equal(bias[:64], before[f"{name}.bias"][:64])
        torch.testing.assert_close(weight[:, 64:], before[f"{name}.weight"][:, 64:] / factors)
        torch.testing.assert_close(bias[64:], before[f"{name}.bias"][64:] / factors)
        scaled = model.get_parameter(f"{reader}.weight")
        torch.testing.assert_close(scaled, before[f"{reader}.weight"] * factors[:, None])


@pytest.mark.parametrize(
    ("kind", "site"),
    [
        ("llama", Site("model.layers.1.self_attn.k_proj", ("model.layers.1.self_attn.o_proj",), None, (0, 16), 8)),
        ("llama", Site("model.layers.1.mlp.gate_proj", ("model.layers.1.mlp.down_proj",), None, (0, 48))),
        ("llama", Site("model.layers.0.self_attn.v_proj", ("model.layers.1.self_attn.o_proj",), None, (0, 16), 8)),
        ("llama", Site("model.layers.1.self_attn.v_proj", ("model.layers.1.self_attn.o_proj",), None, (0, 16), 4)),
        ("gpt2", Site("transformer.h.1.attn.c_attn", ("transformer.h.1.attn.c_proj",), None, (32, 32))),
        ("gpt2", Site("transformer.h.1.mlp.c_fc", ("transformer.h.1.mlp.c_proj",), None, (0, 128))),
        (
            "bloom",
            Site(
                "transformer.h.1.self_attention.query_key_value",
                ("transformer.h.1.self_attention.dense",),
                None,
                (64, 32),
            ),
        ),
    ],
)
@torch.no_grad()
def test_a_layer_that_is_no_producer_is_found_and_named_where_it_is_folded_all_the_same(kind: str, site: Site) -> None:
    model = tiny_model(kind)
    sites = [*find_sites(model)[0], site]
    assert site.rows is not None
    factors = {own.name: torch.linspace(0.5, 2, CHANNELS) for own in sites}
    factors[site.name] = torch.linspace(0.1, 10, site.rows[1]).flip(0)
    with pytest.raises(InferometerError, match=rf"changes the float model at site {site.name}: relative logit error"):
        prove_equivalence(model, sites, factors, PROOF_TOKENS)


@torch.no_grad()
def test_layers_that_never_run_have_no_producer() -> None:
    model = tiny_model("llama")
    for layer in range(LAYERS):
        mlp = model.get_submodule(f"model.layers.{layer}.mlp")
        mlp.spare = nn.Linear(CHANNELS, CHANNELS).requires_grad_(False)
    sites, refusals = find_producers(model, _other_layers(model))
    assert len(sites) == 2 * LAYERS
    assert _reasons(refusals) == dict.fromkeys(
        [f"model.layers.{layer}.mlp.spare" for layer in range(LAYERS)], "it does not run in a forward pass"
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@torch.no_grad()
def test_looking_for_producers_leaves_the_model_alone(kind: str) -> None:
    model = tiny_model(kind)
    before, parameters = _logits(model), dict(model.named_parameters())
    readers = _other_layers(model)
    assert find_producers(model, readers) == find_producers(model, readers)
    assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert torch.equal(_logits(model), before)


def test_the_width_of_a_head_is_stated_or_the_share_of_each() -> None:
    assert head_dim_of(tiny_model("gemma")) == 8
    assert head_dim_of(_model("qwen3", **LLAMA_SHAPE, head_dim=16)) == 16
    assert [head_dim_of(tiny_model(kind)) for kind in ("llama", "gpt2", "opt", "bloom")] == [8] * 4


def test_channels_of_heads_are_spread_to_readers_and_pooled_back() -> None:
    site = Site("v", ("o",), None, (0, 4), 2)
    own = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert site.spread(own, 8).tolist() == [1, 2, 1, 2, 3, 4, 3, 4]
    assert site.pooled(torch.tensor([1.0, 9.0, 5.0, 2.0, 0.0, 3.0, 7.0, 1.0])).tolist() == [5, 9, 7, 3]
    assert torch.equal(site.pooled(site.spread(own, 12)), own)
    weight = torch.tensor([[1.0, -9.0, 5.0, 2.0, 0.0, 3.0, 7.0, 1.0], [0.0, 0.0, -6.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    assert site.pooled_columns(weight).tolist() == [[6, 9, 7, 3]]
    norm = Site("norm", ("q",), 0.0)
    assert torch.equal(norm.spread(own, 4), own)
    assert torch.equal(norm.pooled(own), own)


# --- the strength that serves best -------------------------------------------------------------------------------


def _rounded(values: Array, bits: int) -> Array:
    """The oracle: absmax rounding of every row, in double precision."""
    step = np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1e-5) / (2 ** (bits - 1) - 1)
    result: Array = np.rint(values / step) * step
    return result


@pytest.mark.parametrize(("weight_bits", "input_bits"), [(8, 8), (4, 8), (4, None), (None, 4), (None, None)])
def test_the_output_error_is_that_of_smoothed_and_rounded_products(
    weight_bits: int | None, input_bits: int | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, factors = torch.randn(50, 24, generator=generator), torch.rand(24, generator=generator) + 0.2
    weights = [torch.randn(outputs, 24, generator=generator) for outputs in (7, 16)]
    entry: dict[str, Any] = {}
    if weight_bits:
        entry["weights"] = {"bits": weight_bits, "granularity": "per_channel"}
    if input_bits:
        entry["activations"] = {"bits": input_bits, "granularity": "per_token"}
    found = output_error(weights, rows, factors, Scheme.of("any", entry))
    error = power = 0.0
    x, s = rows.double().numpy(), factors.double().numpy()
    for weight in (own.double().numpy() for own in weights):
        inputs = _rounded(x / s, input_bits) if input_bits else x / s
        rounded = _rounded(weight * s, weight_bits) if weight_bits else weight * s
        error += ((inputs @ rounded.T - x @ weight.T) ** 2).sum()
        power += ((x @ weight.T) ** 2).sum()
    assert found == pytest.approx(error / power, rel=1e-2 if entry else None, abs=1e-10)


def test_the_output_error_leaves_outliers_in_float() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(50, 24, generator=generator), torch.randn(7, 24, generator=generator)
    rows[:, 3] *= 100
    entry = {**W8A8, "activations": {**W8A8["activations"], "bits": 4}}
    scheme = Scheme.of("any", {**entry, "activations": {**entry["activations"], "outlier_threshold": 20.0}})
    x, rounded = rows.double().numpy(), _rounded(weight.double().numpy(), 8)
    inner = x.copy()
    inner[:, 3] = 0
    inputs = _rounded(inner, 4)
    inputs[:, 3] = x[:, 3]
    expected = x @ weight.double().numpy().T
    error = ((inputs @ rounded.T - expected) ** 2).sum() / (expected**2).sum()
    assert output_error([weight], rows, torch.ones(24), scheme) == pytest.approx(error, rel=1e-3)
    assert output_error([weight], rows, torch.ones(24), Scheme.of("any", entry)) > 10 * error


def test_outputs_that_are_all_zero_have_no_error() -> None:
    zero, rows = torch.zeros(3, 8), torch.ones(2, 8)
    assert output_error([zero], rows, torch.ones(8), Scheme.of("any", W8A8)) == 0
    assert output_error([torch.ones(3, 8)], 0 * rows, torch.ones(8), Scheme.of("any", W8A8)) == 0


ERRORS = pd.DataFrame(
    {
        "site": ["a"] * 3 + ["b"] * 3,
        "alpha": [0.0, 0.5, 1.0] * 2,
        "error": [0.9, 0.2, 0.1, 0.3, 0.2, 5.0],
    }
)


def test_each_site_gets_its_best_strength_or_all_of_them_the_one_that_is_best_on_average() -> None:
    assert chosen_alphas(ERRORS, "site") == {"a": 1.0, "b": 0.5}
    assert chosen_alphas(ERRORS, "model") == {"a": 0.5, "b": 0.5}
    shuffled = ERRORS.sample(frac=1, random_state=1)
    assert chosen_alphas(shuffled, "site") == {"a": 1.0, "b": 0.5}
    assert chosen_alphas(shuffled, "model") == {"a": 0.5, "b": 0.5}


@torch.no_grad()
def test_rows_are_taken_from_all_windows_with_their_first_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model, windows = tiny_model("llama"), _windows(3)
    sites, _ = find_sites(model)
    whole: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    handles = [
        linear_layers(model)[site.layers[-1]].register_forward_pre_hook(
            lambda _, arguments, own=whole[site.name]: own.append(arguments[0][0].clone())
        )
        for site in sites
    ]
    every = sample_inputs(model, sites, windows)
    monkeypatch.setattr(search_module, "ROWS_OF_WINDOW", 10)
    some = sample_inputs(model, sites, windows)
    for handle in handles:
        handle.remove()
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name, parts in whole.items():
        assert torch.equal(every[name], torch.cat(parts[:3]))
        assert torch.equal(some[name], torch.cat([part[::4] for part in parts[3:]]))


@pytest.mark.parametrize(
    ("scheme", "settings_"),
    [
        (W8A8, {}),
        (W8A8, {"sites": "all"}),
        (W4, {"method": "awq", "sites": "all"}),
    ],
)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@torch.no_grad()
def test_the_chosen_strength_is_the_best_of_all_candidates(
    kind: str, scheme: Mapping[str, Any], settings_: dict[str, str]
) -> None:
    model, windows = tiny_model(kind), _windows(2)
    per_site = _smoothed(model, windows, scheme, alpha="search_per_site", **settings_)
    per_model = _smoothed(model, windows, scheme, alpha="search_per_model", **settings_)
    sites = set(sites_of(per_site.sites))
    assert (len(sites) > len(find_sites(model)[0])) == ("sites" in settings_)
    for found in (per_site, per_model):
        assert set(found.alphas["site"]) == {site.name for site in sites}
        assert found.alphas.groupby("site")["alpha"].agg(tuple).map(lambda own: own == ALPHAS).all()
        assert (found.alphas.groupby("site")["chosen"].sum() == 1).all()
    pd.testing.assert_frame_equal(per_site.alphas.drop(columns="chosen"), per_model.alphas.drop(columns="chosen"))
    best = per_site.alphas.groupby("site")["error"].min()
    chosen = per_site.alphas[per_site.alphas["chosen"]].set_index("site")
    assert (chosen["error"] == best[chosen.index]).all()
    [strength] = per_model.alphas[per_model.alphas["chosen"]]["alpha"].unique()
    means = per_model.alphas.groupby("alpha")["error"].mean()
    assert means[strength] == means.min()
    for site, alpha in chosen["alpha"].items():  # the factors are those of the strength that was chosen
        fixed = _smoothed(model, windows, scheme, alpha=alpha, **settings_)
        assert torch.equal(factors_of(per_site.scales)[str(site)], factors_of(fixed.scales)[str(site)])
        break


@torch.no_grad()
def test_the_search_tries_what_the_scheme_computes() -> None:
    model, windows = tiny_model("llama"), _windows(2)
    sites, _ = find_producers(model, _other_layers(model))
    inputs, scheme = sample_inputs(model, sites, windows), Scheme.of("any", W8A8)
    generator = torch.Generator().manual_seed(0)
    random = {site.name: torch.rand(site.rows[1], generator=generator) + 0.5 for site in sites if site.rows}
    errors = search(model, sites, inputs, lambda site, alpha: random[site.name] ** alpha, scheme)
    for name, alpha, error in zip(errors["site"], errors["alpha"].tolist(), errors["error"], strict=True):
        [site] = [own for own in sites if own.name == name]
        layer = model.get_submodule(site.layers[0])
        rows, factor = inputs[site.name], site.spread(random[site.name] ** alpha, inputs[site.name].shape[1])
        weight = IntegerGrid("per_channel").round_trip(weight_matrix(layer) * factor)  # type: ignore[arg-type]
        found, expected = IntegerGrid("per_token").round_trip(rows / factor) @ weight.T, layer(rows)
        assert error == pytest.approx(relative_error(found, expected) ** 2, rel=1e-3)


@torch.no_grad()
def test_the_search_passes_over_layers_that_stay_in_float() -> None:
    model, windows = tiny_model("llama"), _windows(2)
    sites, _ = find_sites(model)
    inputs = sample_inputs(model, sites, windows)

    def errors(*keep: str) -> "pd.Series[float]":
        scheme = Scheme.of("any", {**W8A8, "keep": keep})
        found = search(model, sites, inputs, lambda site, _: torch.ones(inputs[site.name].shape[1]), scheme)
        return found.groupby("site")["error"].first()

    kept, fewer, every = errors("*.self_attn.*"), errors("*.q_proj"), errors()
    attention = every.index.str.endswith("input_layernorm")
    assert (kept[attention] == 0).all()
    assert (kept[~attention] == every[~attention]).all()
    assert (fewer[attention] != every[attention]).all()
    assert (fewer[attention] > 0).all()


@torch.no_grad()
def test_the_search_refuses_groups_that_do_not_divide_a_width() -> None:
    model, windows = tiny_model("llama"), _windows(2)
    entry = {**W4, "weights": {"bits": 4, "granularity": "per_group", "group_size": 7}}
    with pytest.raises(InferometerError, match=r"layer model\.layers\.0.* groups of 7 do not divide"):
        _smoothed(model, windows, entry, alpha="search_per_site", method="awq")


# --- activation-aware factors ------------------------------------------------------------------------------------


def test_activation_aware_factors_are_known_by_hand() -> None:
    sizes = torch.tensor([4.0, 1.0, 16.0, 0.0])
    assert activation_aware_factors(sizes[:3], 1.0).tolist() == pytest.approx([1.0, 0.25, 4.0])
    assert activation_aware_factors(sizes[:3], 0.5).tolist() == pytest.approx([1.0, 0.5, 2.0])
    assert activation_aware_factors(sizes, 0.0).tolist() == [1.0] * 4
    assert bool((activation_aware_factors(sizes, 1.0) > 0).all()), "also where nothing was ever seen"
    assert torch.allclose(activation_aware_factors(1000 * sizes[:3], 0.7), activation_aware_factors(sizes[:3], 0.7))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@torch.no_grad()
def test_activation_aware_factors_follow_the_root_mean_square_without_first_tokens(kind: str) -> None:
    model, windows = tiny_model(kind), _windows(3)
    seen: dict[str, list[Tensor]] = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, arguments, name=name: seen.setdefault(name, []).append(arguments[0][0, 1:].double())
        )
        for name, layer in linear_layers(model).items()
    ]
    for window in windows:
        _logits(model, window)
    for handle in handles:
        handle.remove()
    found = _smoothed(model, windows, W4, alpha=0.6, method="awq", sites="all")
    factors = factors_of(found.scales)
    for site in sites_of(found.sites):
        size = torch.cat(seen[site.layers[0]]).square().mean(dim=0).sqrt()
        if site.rows and site.rows[1] < size.numel():  # two query heads to a head of values
            size = size.view(2, 2, 8).amax(dim=1).flatten()
        expected = size**0.6
        expected /= (expected.max() * expected.min()).sqrt()
        torch.testing.assert_close(factors[site.name].double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_activation_aware_scaling_brings_4_bit_weights_closer(seed: int) -> None:
    model, windows = tiny_model("llama", seed=seed), _windows(4)
    entry = {"weights": {"bits": 4, "granularity": "per_group", "group_size": 16, "symmetric": False}}
    scheme, exact = Scheme.of("w4", entry), _logits(model)
    found = _smoothed(model, windows, entry, alpha="search_per_site", method="awq", sites="all")
    with quantized(model, scheme, [], {}):
        plain = relative_error(_logits(model), exact)
    with (
        folded(folding_changes(model, sites_of(found.sites), factors_of(found.scales))),
        quantized(model, scheme, [], {}),
    ):
        assert relative_error(_logits(model), exact) < 0.9 * plain


# --- the chapter -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def activations(llama: PreTrainedModel) -> pd.DataFrame:
    return _calibration(llama, _windows(4))


def _errors_at_8_bits(model: PreTrainedModel) -> tuple[float, float]:
    """What W8A8 does to the logits, without and with smoothing."""
    found, scheme, exact = _smoothed(model, _windows(4)), Scheme.of("w8a8", W8A8), _logits(model)
    with quantized(model, scheme, [], {}):
        plain = relative_error(_logits(model), exact)
    changes = folding_changes(model, sites_of(found.sites), factors_of(found.scales))
    with folded(changes), quantized(model, scheme, [], {}):
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
    smoothing = _smoothed(model, _windows(2))
    scales, table = smoothing.scales, smoothing.sites
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
    assert error == pytest.approx(prove_equivalence(model, sites_of(read_sites), found, _windows(1)[0]), rel=0.5)
    shuffled = factors_of(scales.sample(frac=1, random_state=0))
    assert all(torch.equal(shuffled[name], factors) for name, factors in expected.items())


@pytest.mark.parametrize("alpha", [0, 1, 0.5, "search_per_model"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "opt"])
def test_tables_bring_back_linear_sites_too(kind: str, alpha: float | str, tmp_path: Path) -> None:
    model, windows = tiny_model(kind), _windows(2)
    found = _smoothed(model, windows, alpha=alpha, sites="all")
    tables = ((SCALES, found.scales), (SITES, found.sites), (ALPHAS_TABLE, found.alphas))
    for table, frame in tables:
        write_table(table, frame.sample(frac=1, random_state=0), tmp_path / Path(table.path).name)
    scales, sites, alphas = (read_table(table, tmp_path / Path(table.path).name) for table, _ in tables)
    norms, refusals = find_sites(model)
    producers, more = find_producers(model, _other_layers(model))
    assert sites_of(sites) == [*norms, *producers], "in the order in which they are folded"
    assert sites[~sites["folded"]].set_index("site")["reason"].to_dict() == _reasons(refusals + more)
    factors = factors_of(scales)
    for site in sites_of(sites):
        assert factors[site.name].shape == (site.rows[1] if site.rows else CHANNELS,)
        assert torch.equal(factors[site.name], factors_of(found.scales)[site.name])
    assert prove_equivalence(model, sites_of(sites), factors, windows[0]) <= TOLERANCE
    assert alphas["error"].isna().all() == (not isinstance(alpha, str))
    assert alphas.groupby("site")["chosen"].sum().eq(1).all()


def test_the_chapter_leaves_the_model_as_it_was(llama: PreTrainedModel, activations: pd.DataFrame) -> None:
    parameters, before = dict(llama.named_parameters()), _logits(llama)
    for settings_ in ({"alpha": 0.5}, {"alpha": "search_per_site", "sites": "all"}):
        smooth(llama, activations, Scheme.of("any", W8A8), settings_, _windows(2))
    assert all(llama.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert torch.equal(_logits(llama), before)


@pytest.mark.parametrize("method", ["smoothquant", "awq"])
def test_first_tokens_count_towards_the_factors_of_smoothquant_alone(
    llama: PreTrainedModel, activations: pd.DataFrame, method: str
) -> None:
    reader, site, channel = "model.layers.2.mlp.up_proj", "model.layers.2.post_attention_layernorm", 5
    of_layers = activations["layer"].isin([reader, "model.layers.2.mlp.gate_proj"])
    first = activations["first_token"] & of_layers & (activations["channel"] == channel)
    doctored = activations.copy()
    for column in ("absmax", "mean", "std"):
        doctored[column] = doctored[column].where(~first, 1e6)
    before, after = (
        factors_of(smooth(llama, table, Scheme.of("any", W8A8), {"alpha": 1.0, "method": method}, _windows(1)).scales)
        for table in (activations, doctored.sample(frac=1, random_state=0))
    )
    changed = {(name, int(place)) for name in before for place in (before[name] != after[name]).nonzero()}
    assert changed == ({(site, channel)} if method == "smoothquant" else set())
    assert method == "awq" or after[site][channel] == 1e6


@pytest.mark.parametrize(
    ("doctored", "named"),
    [
        pytest.param(
            lambda table: table[table["layer"] != "model.layers.0.mlp.up_proj"],
            r"model\.layers\.0\.mlp\.up_proj they have a width of no such layer, the model of 32",
            id="a layer is missing",
        ),
        pytest.param(
            lambda table: table[table["channel"] < CHANNELS],
            r"model\.layers\.0\.mlp\.down_proj they have a width of 32, the model of 48",
            id="layers are narrower",
        ),
        pytest.param(
            lambda table: table.assign(layer=table["layer"].str.replace("model.", "transformer.", regex=False)),
            r"model\.layers\.0\.mlp\.down_proj they have a width of no such layer, the model of 48",
            id="layers have other names",
        ),
    ],
)
def test_calibration_of_another_model_is_refused(
    llama: PreTrainedModel,
    activations: pd.DataFrame,
    doctored: Callable[[pd.DataFrame], pd.DataFrame],
    named: str,
) -> None:
    refusal = rf"the calibration tables are of another model: for layer {named}"
    with pytest.raises(InferometerError, match=refusal):
        smooth(llama, doctored(activations), Scheme.of("any", W8A8), {"alpha": 0.5}, _windows(1))


def test_calibration_of_another_architecture_is_refused(activations: pd.DataFrame) -> None:
    for kind in ("gpt2", "opt"):
        with pytest.raises(InferometerError, match="the calibration tables are of another model: for layer "):
            smooth(tiny_model(kind), activations, Scheme.of("any", W8A8), {"alpha": 0.5}, _windows(1))


def test_a_model_without_any_site_is_refused_with_the_reasons() -> None:
    model = _model("olmo2", **LLAMA_SHAPE)
    with pytest.raises(InferometerError, match=r"nothing that smoothing can be folded into \(.*read by Tensor\.add"):
        _smoothed(model, _windows(1))


def test_conv1d_is_read_the_other_way_round() -> None:
    layer = tiny_model("gpt2").get_submodule("transformer.h.0.mlp.c_fc")
    assert isinstance(layer, Conv1D)
    assert weight_matrix(layer).shape[1] == CHANNELS
