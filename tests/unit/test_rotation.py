"""Rotation: orthogonal matrices, where a model takes them up, and the proof that catches every fault."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from inferometer.errors import InferometerError
from inferometer.folding import Change, folded, relative_error
from inferometer.models import linear_layers, quantizable_layers, weight_matrix
from inferometer.rotation import fold, proof
from inferometer.rotation.basis import compare_bases
from inferometer.rotation.fold import Path, changes_of_path, online_rotations, rotation_changes
from inferometer.rotation.hadamard import Rotation, hadamard
from inferometer.rotation.online import inputs_rotated
from inferometer.rotation.paths import find_paths
from inferometer.rotation.proof import prove_rotation
from inferometer.rotation.stored import paths_of, table_of
from inferometer.rotation.tables import BASIS, PATHS
from inferometer.tables import read_table, write_table
from tests.tiny import COMMON, LLAMA_SHAPE, tiny_model

TOKENS = torch.randint(64, (1, 40), generator=torch.Generator().manual_seed(9))
TOLERANCE = 1e-4
LAYERS = 3


def _values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _with_biases(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with random biases: those of a fresh one are all zero."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias") and "norm" not in name and "ln_" not in name:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def _model(model_type: str, **fields: Any) -> PreTrainedModel:
    """A tiny model of a shape that `tests.tiny` does not list, with uneven gains and biases."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**COMMON, **LLAMA_SHAPE, **fields})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.config.use_cache = False
    module: nn.Module = model
    module.requires_grad_(False).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and "norm" in name:
            parameter.add_(0.3 * torch.randn_like(parameter))
    return _with_biases(model)


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    logits: Tensor = model(TOKENS).logits
    return logits


# --- orthogonal matrices -----------------------------------------------------------------------------------------


KNOWN = [1, 2, *(order for order in range(4, 129, 4) if order not in (52, 92, 100, 116))]


@pytest.mark.parametrize("order", KNOWN)
def test_hadamard_matrices_have_orthogonal_rows_of_ones(order: int) -> None:
    matrix = hadamard(order)
    assert matrix is not None
    assert matrix.shape == (order, order)
    assert bool((matrix.abs() == 1).all())
    assert torch.equal(matrix @ matrix.T, order * torch.eye(order, dtype=torch.float64))


@pytest.mark.parametrize("order", [576, 1024, 1536, 2048, 3072])
def test_hadamard_matrices_of_the_widths_of_models_are_orthogonal(order: int) -> None:
    matrix = hadamard(order)
    assert matrix is not None
    sample = matrix[:: max(1, order // 64)]
    assert torch.equal(sample @ matrix.T, order * torch.eye(order, dtype=torch.float64)[:: max(1, order // 64)])


@pytest.mark.parametrize("order", [3, 5, 6, 7, 9, 10, 14, 18, 22, 30, 98, 52, 92])
def test_orders_that_have_no_known_construction_give_none(order: int) -> None:
    assert hadamard(order) is None


def test_the_smallest_orders_are_those_of_sylvester_and_paley() -> None:
    assert torch.equal(_known(4), torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double())
    twelve, twenty = _known(12), _known(20)
    assert torch.equal(twelve + twelve.T, 2 * torch.eye(12, dtype=torch.float64)), "11 is 3 modulo 4: skew"
    assert torch.equal(twenty + twenty.T, 2 * torch.eye(20, dtype=torch.float64)), "and so is 19"
    assert torch.equal(_known(36), _known(36).T), "17 is 1 modulo 4: symmetric"


def _known(order: int) -> Tensor:
    matrix = hadamard(order)
    assert matrix is not None
    return matrix


def _dense(rotation: Rotation) -> Tensor:
    """The oracle: the whole matrix [width, width]."""
    return torch.kron(rotation.outer.contiguous(), rotation.inner.contiguous()) * rotation.signs


@pytest.mark.parametrize("width", [*range(1, 201), 576, 1536])
def test_a_rotation_of_any_width_is_orthogonal_and_its_fast_product_that_of_the_matrix(width: int) -> None:
    rotation = Rotation.random(width, seed=width)
    dense = _dense(rotation)
    assert dense.shape == (width, width)
    if width <= 576:
        torch.testing.assert_close(dense @ dense.T, torch.eye(width, dtype=torch.float64))
    rows = _values(2, 3, width)
    rotated = rotation(rows)
    torch.testing.assert_close(rotated, rows @ dense.T)
    torch.testing.assert_close(rotated.norm(dim=-1), rows.norm(dim=-1))


@pytest.mark.parametrize("width", [8, 48, 64, 576, 1536, 2048])
def test_a_single_outlier_is_spread_evenly_over_the_widths_that_models_have(width: int) -> None:
    outlier = torch.zeros(width, dtype=torch.float64)
    outlier[width // 3] = 1.0
    torch.testing.assert_close(
        Rotation.random(width, 0)(outlier).abs(), torch.full((width,), width**-0.5, dtype=torch.float64)
    )


@pytest.mark.parametrize("width", [7, 45, 97])
def test_widths_without_a_hadamard_matrix_get_a_rotation_that_mixes_all_channels(width: int) -> None:
    dense = _dense(Rotation.random(width, 0))
    assert bool((dense != 0).all())
    assert float(dense.abs().max()) < 0.95


@pytest.mark.parametrize("width", [7, 48, 576])
def test_the_same_seed_gives_the_same_rotation_and_another_seed_another(width: int) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (Rotation.random(width, seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before), "it has a generator of its own"
    rows = _values(2, width)
    assert torch.equal(first(rows), again(rows))
    assert not torch.allclose(first(rows), other(rows))


def test_products_stay_what_they_are_when_rows_and_weights_are_both_rotated() -> None:
    rotation = Rotation.random(48, 1)
    rows, weight = _values(5, 48), _values(7, 48, seed=1)
    torch.testing.assert_close(rotation(rows) @ rotation(weight).T, rows @ weight.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rotation_takes_on_the_dtype_of_a_tensor(dtype: torch.dtype) -> None:
    rotation, rows = Rotation.random(96, 0), _values(4, 96)
    rotated = rotation.to(rows.to(dtype))(rows.to(dtype))
    assert rotated.dtype == dtype
    assert relative_error(rotated.double(), rotation(rows)) < (1e-6 if dtype == torch.float32 else 0.02)


# --- paths -------------------------------------------------------------------------------------------------------


def _kinds() -> dict[str, Callable[[], PreTrainedModel]]:
    return {
        "llama": lambda: tiny_model("llama"),
        "qwen2": lambda: _with_biases(tiny_model("qwen2")),
        "gemma": lambda: tiny_model("gemma"),
        "llama with biases": lambda: _model("llama", attention_bias=True, mlp_bias=True),
        "llama without grouped queries": lambda: _model("llama", num_key_value_heads=4),
        "gemma with wide heads": lambda: _model("gemma", head_dim=16),
        "qwen3 with norms of heads": lambda: _model("qwen3", head_dim=16),
        "phi3 with fused projections": lambda: _model("phi3", pad_token_id=0),
        "mistral with a width that has no Hadamard matrix": lambda: _model(
            "mistral", hidden_size=42, intermediate_size=50, num_attention_heads=7, num_key_value_heads=1
        ),
    }


ROTATED = list(_kinds())


def _of_kind(kind: str) -> PreTrainedModel:
    with torch.no_grad():
        return _kinds()[kind]()


@pytest.mark.parametrize("kind", ROTATED)
def test_rotation_leaves_the_logits_what_they_were(kind: str) -> None:
    model = _of_kind(kind)
    before = _logits(model)
    for seed in (0, 1):
        paths, error = prove_rotation(model, seed, TOKENS)
        assert 0 < error <= TOLERANCE
        with folded(rotation_changes(model, paths, seed)), inputs_rotated(model, online_rotations(model, paths, seed)):
            assert relative_error(_logits(model), before) == pytest.approx(error)
    assert torch.equal(_logits(model), before)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_every_layer_of_a_model_is_on_a_path_of_the_role_that_it_has(kind: str) -> None:
    model, offset = tiny_model(kind), 1.0 if kind == "gemma" else 0.0
    expected = {Path("embedding", "model.embed_tokens"), Path("norm", "model.norm", offset=offset)}
    expected |= {Path("reader", "lm_head", "model.norm", offset)}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        attention, mlp = f"{block}.self_attn", f"{block}.mlp"
        readers = {f"{attention}.{name}_proj": "input_layernorm" for name in "qkv"}
        readers |= {f"{mlp}.{name}_proj": "post_attention_layernorm" for name in ("gate", "up")}
        expected |= {Path("reader", name, f"{block}.{norm}", offset) for name, norm in readers.items()}
        expected |= {Path("norm", f"{block}.{norm}", offset=offset) for norm in readers.values()}
        expected |= {Path("writer", name) for name in (f"{attention}.o_proj", f"{mlp}.down_proj")}
        expected |= {Path("value", f"{attention}.v_proj", f"{attention}.o_proj", None, 0, 16, 8)}
        expected |= {Path("online", f"{mlp}.down_proj")}
    paths = find_paths(model)
    assert set(paths) == expected
    assert len(paths) == len(expected)
    places = {(path.role, path.module): place for place, path in enumerate(paths)}
    for path in paths:
        if path.role == "reader":
            assert places["reader", path.module] < places["norm", str(path.partner)], "before its norm loses its gain"


def test_values_of_a_fused_projection_are_its_last_rows() -> None:
    model = _of_kind("phi3 with fused projections")
    values = [path for path in find_paths(model) if path.role == "value"]
    assert values == [
        Path(
            "value",
            f"model.layers.{layer}.self_attn.qkv_proj",
            f"model.layers.{layer}.self_attn.o_proj",
            None,
            48,
            16,
            8,
        )
        for layer in range(LAYERS)
    ]


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_a_model_comes_back_from_the_proof_as_it_was(kind: str) -> None:
    model = tiny_model(kind)
    parameters, before = dict(model.named_parameters()), _logits(model)
    values = {name: parameter.clone() for name, parameter in parameters.items()}
    tied = model.get_submodule("lm_head").weight is model.get_input_embeddings().weight
    prove_rotation(model, 0, TOKENS)
    assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert all(torch.equal(parameters[name], value) for name, value in values.items())
    assert (model.get_submodule("lm_head").weight is model.get_input_embeddings().weight) == tied
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(_logits(model), before)


def test_a_tied_head_gets_a_weight_of_its_own() -> None:
    model = tiny_model("llama")
    head, embedding = model.get_submodule("lm_head"), model.get_input_embeddings()
    assert head.weight is embedding.weight
    with folded(rotation_changes(model, find_paths(model), 0)):
        assert head.weight is not embedding.weight
        assert not torch.allclose(head.get_parameter("weight"), embedding.get_parameter("weight"))
    assert head.weight is embedding.weight


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
@torch.no_grad()
def test_planted_outliers_are_flattened(kind: str) -> None:
    model = tiny_model(kind, outliers=False)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter[[3, 11]] = 60.0
    paths = find_paths(model)
    readers = [path.module for path in paths if path.role == "reader"]

    def peaks() -> dict[str, float]:
        found: dict[str, float] = {}

        def keeper(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def keep(_layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                rows = arguments[0]
                found[name] = float(rows.abs().amax() / rows.square().mean().sqrt())

            return keep

        handles = [linear_layers(model)[name].register_forward_pre_hook(keeper(name)) for name in readers]
        _logits(model)
        for handle in handles:
            handle.remove()
        return found

    plain = peaks()
    with folded(rotation_changes(model, paths, 0)), inputs_rotated(model, online_rotations(model, paths, 0)):
        rotated = peaks()
    assert plain.keys() == rotated.keys() == set(readers)
    assert min(plain.values()) > 6
    assert all(rotated[name] < 0.7 * plain[name] for name in readers)


# --- refusals ----------------------------------------------------------------------------------------------------


MEAN = "subtracts the mean or adds a bias, which a rotation does not keep"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gemma2", r"its norm model\.layers\.0\.post_attention_layernorm can't be absorbed, since its output is also"),
        ("gpt2", rf"its norm transformer\.h\.0\.ln_1 {MEAN}"),
        ("opt", rf"its norm model\.decoder\.\S+norm {MEAN}"),
        ("gpt_neox", rf"its norm gpt_neox\.layers\.0\.input_layernorm {MEAN}"),
        ("bloom", r"its norm transformer\.word_embeddings_layernorm can't be absorbed, since its output is also read"),
    ],
)
def test_a_model_that_can_not_be_rotated_is_refused_with_the_reason(kind: str, reason: str) -> None:
    model = tiny_model(kind)
    before = _logits(model)
    with pytest.raises(InferometerError, match=rf"^the model can't be rotated: {reason}.*; leave `rotation` out of"):
        prove_rotation(model, 0, TOKENS)
    assert torch.equal(_logits(model), before)


def test_a_mixture_that_packs_its_experts_is_refused() -> None:
    with pytest.raises(InferometerError, match=r"packs several matrices into model\.layers\.0\.mlp\.experts"):
        prove_rotation(tiny_model("mixtral"), 0, TOKENS)


def test_norms_behind_the_layers_are_refused() -> None:
    with pytest.raises(InferometerError, match=r"can't be rotated: its norm \S+ can't be absorbed"):
        prove_rotation(_model("olmo2"), 0, TOKENS)


class _BiasedNorm(nn.Module):
    """An RMS norm with a bias."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.get_parameter("weight").clone(), requires_grad=False)
        self.bias = nn.Parameter(torch.full_like(self.weight, 0.5), requires_grad=False)

    def forward(self, values: Tensor) -> Tensor:
        return values * torch.rsqrt(values.square().mean(dim=-1, keepdim=True) + 1e-6) * self.weight + self.bias


@pytest.mark.parametrize(
    "norm", [_BiasedNorm, lambda norm: nn.LayerNorm(norm.weight.numel(), bias=False).requires_grad_(False)]
)
def test_one_norm_that_adds_a_bias_or_subtracts_the_mean_is_enough(norm: Callable[[nn.Module], nn.Module]) -> None:
    model = tiny_model("llama")
    name = "model.layers.2.post_attention_layernorm"
    model.set_submodule(name, norm(model.get_submodule(name)))
    with pytest.raises(InferometerError, match=rf"its norm {name} {MEAN}"):
        find_paths(model)


class _Deep(nn.Module):
    """An MLP of three linear layers, of which the middle one stands apart from the residual stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(32, width), nn.Linear(width, width), nn.Linear(width, 32)

    def forward(self, values: Tensor) -> Tensor:
        output: Tensor = self.last(self.middle(self.first(values).relu()).relu())
        return output


def test_a_layer_that_neither_reads_nor_writes_the_residual_stream_is_refused() -> None:
    model = tiny_model("llama")
    torch.manual_seed(0)
    model.get_submodule("model.layers.1").mlp = _Deep(24).requires_grad_(False)
    with pytest.raises(InferometerError, match=r"its layer model\.layers\.1\.mlp\.middle neither reads a norm of"):
        find_paths(model)


def test_a_layer_that_only_has_the_shape_of_one_that_writes_is_caught_by_the_proof() -> None:
    model = tiny_model("llama")
    torch.manual_seed(0)
    model.get_submodule("model.layers.1").mlp = _Deep(32).requires_grad_(False)
    with pytest.raises(InferometerError, match="rotation changes the float model: relative logit error"):
        prove_rotation(model, 0, TOKENS)


# --- planted faults ----------------------------------------------------------------------------------------------


def _check_that_the_proof_catches(model: PreTrainedModel) -> None:
    before = _logits(model)
    with pytest.raises(InferometerError, match=r"rotation changes the float model: relative logit error \S+, allowed"):
        prove_rotation(model, 0, TOKENS)
    assert torch.equal(_logits(model), before)


def _first(paths: list[Path], role: str) -> Path:
    return [path for path in paths if path.role == role][1 if role != "embedding" else 0]


Corrupt = Callable[[list[Path]], list[Path]]


def _without(role: str) -> Corrupt:
    return lambda paths: [path for path in paths if path is not _first(paths, role)]


def _twice(role: str) -> Corrupt:
    return lambda paths: [*paths, _first(paths, role)]


def _with(role: str, **fields: Any) -> Corrupt:
    return lambda paths: [replace(path, **fields) if path is _first(paths, role) else path for path in paths]


CORRUPTIONS: dict[str, tuple[str, Corrupt]] = {
    **{f"a {role} is forgotten": ("llama", _without(role)) for role in ("embedding", "reader", "norm", "writer")},
    **{f"a {role} is taken twice": ("llama", _twice(role)) for role in ("embedding", "writer", "online")},
    **{f"the offset of a {role} is wrong": ("gemma", _with(role, offset=0.0)) for role in ("reader", "norm")},
    "a reader takes up the gain of another norm": ("llama", _with("reader", partner="model.norm")),
    "norms lose their gains too early": ("llama", lambda paths: sorted(paths, key=lambda path: path.role != "norm")),
    "some heads are left out": ("llama", _with("value", first_row=8, rows=8)),
    "the values of a fused projection are sought among its queries": (
        "phi3 with fused projections",
        _with("value", first_row=0),
    ),
}


@pytest.mark.parametrize("fault", CORRUPTIONS)
def test_a_corrupted_path_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, corrupt = CORRUPTIONS[fault]
    monkeypatch.setattr(proof, "find_paths", lambda model: corrupt(find_paths(model)))
    _check_that_the_proof_catches(_of_kind(kind))


@pytest.mark.parametrize("role", ["embedding", "reader", "writer", "online"])
def test_one_path_with_another_seed_is_caught(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    victim = _first(find_paths(model), role)

    def changes(of: PreTrainedModel, path: Path, seed: int) -> Iterator[Change]:
        return changes_of_path(of, path, seed + (path == victim))

    monkeypatch.setattr(fold, "changes_of_path", changes)
    _check_that_the_proof_catches(model)


@pytest.mark.parametrize("kept", [0, 2])
def test_online_rotations_that_are_left_out_are_caught(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(model: PreTrainedModel, paths: list[Path], seed: int) -> dict[str, Rotation]:
        return dict(itertools.islice(online_rotations(model, paths, seed).items(), kept))

    monkeypatch.setattr(proof, "online_rotations", some)
    _check_that_the_proof_catches(tiny_model("llama"))


def test_a_bias_that_is_not_rotated_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_bias(of: PreTrainedModel, path: Path, seed: int) -> Iterator[Change]:
        return (change for change in changes_of_path(of, path, seed) if change[1] != "bias")

    monkeypatch.setattr(fold, "changes_of_path", without_bias)
    _check_that_the_proof_catches(_of_kind("llama with biases"))


def test_weights_that_are_no_numbers_are_caught() -> None:
    model = tiny_model("llama")
    model.get_parameter("model.layers.1.mlp.down_proj.weight")[3, 4] = float("nan")
    with pytest.raises(InferometerError, match="relative logit error nan"):
        prove_rotation(model, 0, TOKENS)


# --- tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ROTATED)
def test_paths_come_back_from_their_table_in_order(kind: str, tmp_path: FilePath) -> None:
    model = _of_kind(kind)
    paths, error = prove_rotation(model, 0, TOKENS)
    write_table(PATHS, table_of(paths, error).sample(frac=1, random_state=0), tmp_path / "paths.parquet")
    table = read_table(PATHS, tmp_path / "paths.parquet")
    found = paths_of(table.sample(frac=1, random_state=1))
    assert found == paths
    assert all(isinstance(path.rows, int | None) and isinstance(path.first_row, int | None) for path in found)
    assert table["logit_error"].unique().tolist() == [error]
    before = _logits(model)
    with folded(rotation_changes(model, found, 0)), inputs_rotated(model, online_rotations(model, found, 0)):
        assert relative_error(_logits(model), before) == pytest.approx(error)


def test_a_model_without_value_paths_has_a_table_too(tmp_path: FilePath) -> None:
    paths = [Path("embedding", "a"), Path("online", "b")]
    write_table(PATHS, table_of(paths, 1e-6), tmp_path / "paths.parquet")
    assert paths_of(read_table(PATHS, tmp_path / "paths.parquet")) == paths


# --- the basis ---------------------------------------------------------------------------------------------------


NARROW = [
    f"model.layers.{layer}.{name}_proj"
    for layer in range(LAYERS)
    for name in ("mlp.gate", "mlp.up", "self_attn.k", "self_attn.o", "self_attn.q", "self_attn.v")
]  # all but down_proj, whose 48 inputs don't part into groups of 32


def _bases(model: PreTrainedModel, folder: FilePath, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The decibels of each layer as it is and as rotated, as they come back from the table."""
    write_table(BASIS, compare_bases(model, find_paths(model), seed), folder / "basis.parquet")
    rows = read_table(BASIS, folder / "basis.parquet").itertuples()
    return {str(row.layer): (row.weight_sqnr_db, row.rotated_weight_sqnr_db) for row in rows}  # type: ignore[misc]  # floats


def _put_on_a_grid(model: PreTrainedModel, shift: float = 0.0, noise: float = 0.0) -> None:
    """Give every group of 32 weights 16 values with steps of one size, from smallest to largest.

    One of them is zero, or a `shift` of so many steps away from it; `noise` is a deviation in steps.
    """
    generator = torch.Generator().manual_seed(0)
    for layer in quantizable_layers(model).values():
        groups = layer.weight.view(-1, 16 if layer.weight.shape[1] % 32 else 32)
        codes = torch.randint(16, groups.shape, generator=generator)
        codes[:, :2] = torch.tensor([0, 15])
        zeros = torch.randint(1, 15, (len(groups), 1), generator=generator)
        steps = torch.randint(1, 5, (len(groups), 1), generator=generator) / 64
        off = shift + noise * torch.randn(groups.shape, generator=generator)
        groups.copy_((codes - zeros + off) * steps)


def test_weights_on_a_grid_lose_nothing_as_they_are_and_what_all_weights_lose_as_rotated(tmp_path: FilePath) -> None:
    model = tiny_model("llama", outliers=False)
    _put_on_a_grid(model)
    for own, rotated in _bases(model, tmp_path).values():
        assert own == math.inf
        assert 18 < rotated < 25


def test_weights_that_are_nearly_on_a_grid_lose_little_as_they_are(tmp_path: FilePath) -> None:
    model = tiny_model("llama", outliers=False)
    _put_on_a_grid(model, noise=0.01)
    for own, rotated in _bases(model, tmp_path).values():
        assert 40 < own < 70
        assert 18 < rotated < 25


def test_a_grid_that_zero_does_not_lie_on_is_another_grid(tmp_path: FilePath) -> None:
    model = tiny_model("llama", outliers=False)
    _put_on_a_grid(model, shift=0.5)
    for own, rotated in _bases(model, tmp_path).values():
        assert 18 < own < 25
        assert 18 < rotated < 25


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_random_weights_lose_the_same_in_both_bases(kind: str, tmp_path: FilePath) -> None:
    found = _bases(tiny_model(kind, outliers=False), tmp_path)
    assert list(found) == NARROW
    for own, rotated in found.values():
        assert own == pytest.approx(rotated, abs=1)


def test_both_bases_are_rounded_as_by_hand(tmp_path: FilePath) -> None:
    model, seed = tiny_model("llama"), 7
    name = "model.layers.1.mlp.up_proj"
    gain = model.get_parameter("model.layers.1.post_attention_layernorm.weight")
    weight = weight_matrix(quantizable_layers(model)[name])
    rotated = ((weight * gain).double() @ _dense(Rotation.random(32, seed)).T).float()

    def decibels(rows: Tensor) -> float:
        low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
        assert bool((low < 0).all() and (high > 0).all())
        exact = (high - low) / 15
        scale = torch.from_numpy(exact.numpy().astype("float16"))
        scale = torch.where(scale.float() < exact, torch.nextafter(scale, torch.tensor(math.inf).half()), scale).float()
        zero = (-low / scale).round()
        found = scale * (((rows / scale).round() + zero).clamp(0, 15) - zero)
        return 20 * math.log10(float(rows.norm() / (rows - found).norm()))

    own, other = _bases(model, tmp_path, seed)[name]
    assert own == pytest.approx(decibels(weight), abs=1e-3)
    assert other == pytest.approx(decibels(rotated), abs=1e-3)
    assert abs(own - other) > 0.01


def test_comparing_bases_leaves_the_model_as_it_was() -> None:
    model = tiny_model("llama")
    parameters, before = dict(model.named_parameters()), _logits(model)
    compare_bases(model, find_paths(model), 0)
    assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert torch.equal(_logits(model), before)


def test_a_layer_of_zeros_has_no_decibels(tmp_path: FilePath) -> None:
    model = tiny_model("llama", outliers=False)
    model.get_parameter(f"{NARROW[1]}.weight").zero_()
    found = _bases(model, tmp_path)
    assert [name for name, values in found.items() if any(map(math.isnan, values))] == [NARROW[1]]
    assert all(map(math.isnan, found[NARROW[1]]))


def test_a_model_without_groups_has_an_empty_table(tmp_path: FilePath) -> None:
    assert _bases(_of_kind("mistral with a width that has no Hadamard matrix"), tmp_path) == {}
