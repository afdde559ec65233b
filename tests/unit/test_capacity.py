"""Capacity from a configuration alone: held against transformers' own models, the project's grids, and properties."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from inferometer.capacity.__main__ import main
from inferometer.capacity.catalogue import (
    config_file,
    find_shape,
    gpu,
    gpu_names,
    model_names,
    model_source,
    public_config,
)
from inferometer.capacity.fit import Deployment, fit, replicated
from inferometer.capacity.shapes import FAMILIES, Shape, shape_of
from inferometer.capacity.storage import (
    head_bytes,
    kv_bytes_per_request,
    kv_bytes_per_token,
    matrix_bytes,
    weight_bytes,
    workspace_bytes_per_token,
)
from inferometer.errors import InferometerError
from inferometer.schemes import grid_of
from inferometer.units import GIB
from tests.tiny import CONFIGS, tiny_checkpoint

ROOT = Path(__file__).parents[2]
PUBLISHED = {  # as the makers or the hub's safetensors state them
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "gemma-2-2b": 2_614_341_888,
    "smollm2-135m": 134_515_008,
}
LLAMA = dict(public_config("llama-3-8b"))
VARIANTS: Mapping[str, dict[str, Any]] = {
    **{kind: CONFIGS[kind] for kind in CONFIGS if kind in FAMILIES},
    "llama with biases": {**CONFIGS["llama"], "attention_bias": True, "mlp_bias": True},
    "llama with heads of their own width": {**CONFIGS["llama"], "head_dim": 16},
    "llama with as many KV heads as heads": {**CONFIGS["llama"], "num_key_value_heads": None},
    "mistral": {**CONFIGS["llama"], "model_type": "mistral", "sliding_window": 16, "tie_word_embeddings": False},
    "qwen2, tied": {**CONFIGS["qwen2"], "tie_word_embeddings": True},
    "gpt2 with another inner width": {**CONFIGS["gpt2"], "n_inner": 40},
    "opt with narrow embeddings": {**CONFIGS["opt"], "word_embed_proj_dim": 16},
    "opt with norms behind": {**CONFIGS["opt"], "do_layer_norm_before": False},
    "opt without biases": {**CONFIGS["opt"], "enable_bias": False, "layer_norm_elementwise_affine": False},
    "gpt_neox, tied, without attention biases": {
        **CONFIGS["gpt_neox"],
        "tie_word_embeddings": True,
        "attention_bias": False,
    },
}


def meta_model(fields: Mapping[str, Any]) -> PreTrainedModel:
    """The model that transformers makes of a configuration, without memory for its weights."""
    own = dict(fields)
    with torch.device("meta"):
        config = AutoConfig.for_model(own.pop("model_type"), **own)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def complete(fields: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a configuration, those that transformers fills in included, as a config.json holds them."""
    own = dict(fields)
    return {**json.loads(AutoConfig.for_model(own.pop("model_type"), **own).to_json_string())}


def tiny_shape(**changes: Any) -> Shape:
    """A small llama of 4 heads and 2 KV heads, untied."""
    fields = {**CONFIGS["llama"], "vocab_size": 64, "tie_word_embeddings": False, **changes}
    return shape_of(fields, "a test")


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", model_names())
def test_a_shipped_shape_has_as_many_parameters_as_transformers_own_model(name: str) -> None:
    shape = find_shape(name)
    assert shape.parameters == meta_model(public_config(name)).num_parameters() == PUBLISHED[name]
    assert model_source(name).startswith("https://huggingface.co/")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_family_has_as_many_parameters_as_transformers_own_model(name: str) -> None:
    fields = complete({"vocab_size": 64, "max_position_embeddings": 64, **VARIANTS[name]})
    assert shape_of(fields, name).parameters == meta_model(fields).num_parameters()


@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.startswith("mixtral")])
def test_parts_have_the_names_and_sizes_of_transformers_modules(name: str) -> None:
    fields = complete({"vocab_size": 64, "max_position_embeddings": 64, **VARIANTS[name]})
    shape, model = shape_of(fields, name), meta_model(fields)
    modules = dict(model.named_modules())
    for part in shape.parts:
        for module in part.modules(range(part.layers)):
            own = sum(parameter.numel() for parameter in modules[module].parameters(recurse=False))
            assert own == part.parameters // part.copies, module
            rounded = part.group != "head" and isinstance(modules[module], torch.nn.Linear | Conv1D)
            assert part.linear == rounded or module.endswith("project_out"), module


def test_of_a_mixture_a_token_meets_the_chosen_experts_only() -> None:
    shape = find_shape("mixtral-8x7b")
    expert = 3 * 4096 * 14336 * 32
    assert shape.parameters - shape.active_parameters == 6 * expert
    assert find_shape("llama-3-8b").active_parameters == PUBLISHED["llama-3-8b"]


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_missing_field_is_named(field: str) -> None:
    fields = {name: value for name, value in LLAMA.items() if name != field}
    with pytest.raises(InferometerError, match=rf"^mine lacks the field `{field}`"):
        shape_of(fields, "mine")


@pytest.mark.parametrize("family", ["mistral", "mixtral", "qwen2", "gemma2"])
def test_kv_heads_are_not_guessed_where_transformers_would_take_another_models(family: str) -> None:
    fields = {**CONFIGS["llama"], "model_type": family, "vocab_size": 64, "num_key_value_heads": None}
    with pytest.raises(InferometerError, match="`num_key_value_heads`"):
        shape_of(fields, "mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "4096"}, r"`hidden_size` as '4096'; it must be a whole number"),
        ({"hidden_size": 0}, r"`hidden_size` as 0"),
        ({"num_hidden_layers": True}, r"`num_hidden_layers` as True"),
        ({"num_key_value_heads": 5}, r"32 query heads and 5 KV heads"),
        ({"num_attention_heads": 24}, r"24 heads, which do not divide its width of 4096"),
        ({"model_type": "mamba"}, r"`model_type` mamba, whose parts are not known here; known are llama"),
        ({"model_type": "mistral", "sliding_window": 8, "layer_types": ["full_attention"]}, r"1 `layer_types`"),
        (
            {"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3},
            r"to 3 of 2 experts",
        ),
    ],
)
def test_a_wrong_configuration_is_refused_in_a_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InferometerError, match=message):
        shape_of({**LLAMA, **change}, "mine")


# --- bytes of weights --------------------------------------------------------------------------------------------

WEIGHTS: list[dict[str, Any]] = [
    {"bits": 8, "granularity": "per_channel"},
    {"bits": 4, "granularity": "per_group", "group_size": 16, "symmetric": False},
    {"bits": 3, "granularity": "per_group", "group_size": 32},
    {"bits": 5, "granularity": "per_tensor", "symmetric": False},
    {"format": "fp8_e4m3", "granularity": "per_channel"},
    {"format": "fp8_e5m2", "granularity": "per_tensor"},
    {"format": "mxfp8"},
    {"format": "mxfp4"},
    {"format": "nvfp4"},
]


@given(st.sampled_from(WEIGHTS), st.integers(1, 300), st.integers(1, 12).map(lambda groups: 32 * groups))
def test_a_rounded_matrix_has_the_bytes_that_its_grid_states(
    weights: dict[str, Any], outputs: int, inputs: int
) -> None:
    assert matrix_bytes(weights, outputs, inputs) == grid_of(weights).bytes_of(torch.Size([outputs, inputs]))


@pytest.mark.parametrize("scheme", ["fp", *(f"weights {place}" for place in range(len(WEIGHTS)))])
def test_a_model_has_the_bytes_of_its_parameters_with_linear_layers_on_the_grid(scheme: str) -> None:
    fields = complete({**CONFIGS["llama"], "intermediate_size": 64, "vocab_size": 64, "max_position_embeddings": 64})
    entry = {} if scheme == "fp" else {"weights": WEIGHTS[int(scheme.split()[1])]}
    model = meta_model(fields)
    rounded = {name: layer.weight for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    rounded.pop("lm_head")
    expected = sum(grid_of(entry["weights"]).bytes_of(weight.shape) for weight in rounded.values()) if entry else 0
    floats = model.num_parameters() - (sum(weight.numel() for weight in rounded.values()) if entry else 0)
    found = weight_bytes(shape_of(fields, "a test"), "float32", entry)
    assert (found.rounded_bytes, found.float_bytes) == (expected, 4 * floats)
    assert found.total_bytes == expected + 4 * floats


def test_kept_layers_stay_in_float_and_a_rotation_unties_the_head() -> None:
    shape = tiny_shape(tie_word_embeddings=True)
    entry = {"weights": WEIGHTS[0]}
    whole = weight_bytes(shape, "bfloat16", entry)
    kept = weight_bytes(shape, "bfloat16", {**entry, "keep": ["model.layers.1.*", "*.down_proj"]})
    down, layer = 32 * 48, 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48
    assert kept.float_bytes - whole.float_bytes == 2 * (layer + 2 * down)
    rotated = weight_bytes(shape, "bfloat16", {**entry, "rotation": {"seed": 0}})
    assert rotated.float_bytes - whole.float_bytes == 2 * 64 * 32


def test_a_format_that_only_its_library_knows_is_refused() -> None:
    with pytest.raises(InferometerError, match="nf4"):
        weight_bytes(tiny_shape(), "bfloat16", {"weights": {"format": "nf4"}})
    assert weight_bytes(tiny_shape(), "float32", {"weights": {"format": "llm_int8"}}).rounded_bytes > 0


def test_groups_that_do_not_divide_the_inputs_are_refused() -> None:
    with pytest.raises(InferometerError, match="groups of 64 do not divide 32 inputs"):
        weight_bytes(
            tiny_shape(), "bfloat16", {"weights": {**WEIGHTS[1], "group_size": 64, "granularity": "per_group"}}
        )


# --- KV cache ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma", "gpt2", "opt", "gpt_neox"])
def test_the_cache_has_the_bytes_of_transformers_own(kind: str) -> None:
    fields = complete({"vocab_size": 64, "max_position_embeddings": 64, **CONFIGS[kind]})
    own = dict(fields)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(own.pop("model_type"), **own), dtype=torch.float16)
    cache: Any = DynamicCache()
    model.eval()(torch.zeros(2, 7, dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 2 * kv_bytes_per_request(shape_of(fields, kind), 7, 16)


def test_layers_with_a_window_hold_no_more_than_that() -> None:
    gemma, mistral = find_shape("gemma-2-2b"), find_shape("mistral-7b")
    assert gemma.windows == (4096, None) * 13
    assert kv_bytes_per_request(gemma, 8192, 16) == 13 * (8192 + 4096) * 2 * 4 * 256 * 2
    assert kv_bytes_per_request(mistral, 32768, 16) == 4096 * kv_bytes_per_token(mistral, 16)
    types = ["full_attention", "sliding_attention", "sliding_attention"]
    shape = tiny_shape(model_type="mistral", sliding_window=16, layer_types=types)
    assert shape.windows == (None, 16, 16)
    qwen = {**CONFIGS["qwen2"], "vocab_size": 64, "sliding_window": 16, "max_window_layers": 2}
    assert shape_of(qwen, "a test").windows == (None,) * 3, "its windows are off unless switched on"
    assert shape_of({**qwen, "use_sliding_window": True}, "a test").windows == (None, None, 16)


def test_a_rounded_cache_has_a_scale_for_each_key_and_value() -> None:
    assert [head_bytes(128, bits) for bits in (16, 8, 4, 2)] == [256, 130, 66, 34]
    shape = find_shape("llama-3-8b")
    assert kv_bytes_per_token(shape, 16) == 131_072, "the figure of study 004"
    assert kv_bytes_per_token(shape, 4) == 2 * 32 * 8 * 66


@pytest.mark.parametrize("context", [0, -5])
def test_a_context_below_one_is_refused(context: int) -> None:
    with pytest.raises(InferometerError, match=f"the context is {context} tokens; it must be at least 1"):
        kv_bytes_per_request(find_shape("llama-3-8b"), context, 16)
    with pytest.raises(InferometerError, match="the context is"):
        fit(find_shape("llama-3-8b"), 80 * GIB, Deployment(context))


# --- what fits ---------------------------------------------------------------------------------------------------

PLANS = st.builds(
    Deployment,
    context_tokens=st.integers(1, 40),
    tensor_parallel=st.sampled_from([1, 2, 4]),
    pipeline_parallel=st.integers(1, 3),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    kv_bits=st.sampled_from([16, 8, 4, 2]),
    overhead_bytes=st.integers(0, 10_000),
    reserve_share=st.floats(0, 0.5),
    workspace_tokens=st.integers(0, 8),
)
MEMORY = st.integers(0, 2_000_000)


@given(PLANS, MEMORY, st.booleans())
def test_the_largest_batch_fits_and_one_more_request_does_not(plan: Deployment, memory: int, tied: bool) -> None:
    found = fit(tiny_shape(tie_word_embeddings=tied), memory, plan)
    fixed = found.weights_bytes_per_gpu + found.workspace_bytes_per_gpu
    if found.largest_batch:
        assert fixed + found.largest_batch * found.request_bytes_per_gpu <= found.available_bytes_per_gpu
        assert found.shortfall_bytes == 0
    else:
        assert found.shortfall_bytes == fixed + found.request_bytes_per_gpu - found.available_bytes_per_gpu > 0
    assert fixed + (found.largest_batch + 1) * found.request_bytes_per_gpu > found.available_bytes_per_gpu


@given(PLANS, MEMORY, st.integers(1, 40), MEMORY)
def test_more_memory_or_a_shorter_context_never_fits_less(
    plan: Deployment, memory: int, context: int, more: int
) -> None:
    shape, batch = tiny_shape(), fit(tiny_shape(), memory, plan).largest_batch
    assert fit(shape, memory + more, plan).largest_batch >= batch
    shorter = Deployment(**{**vars(plan), "context_tokens": min(context, plan.context_tokens)})
    assert fit(shape, memory, shorter).largest_batch >= batch
    fewer_bits = Deployment(**{**vars(plan), "kv_bits": 2})
    assert fit(shape, memory, fewer_bits).largest_batch >= batch


@pytest.mark.parametrize("name", [name for name in model_names() if name != "smollm2-135m"])
@pytest.mark.parametrize("degree", [2, 4, 8])
def test_gpus_together_hold_at_least_what_one_does(name: str, degree: int) -> None:
    shape = find_shape(name)
    one, shared = (fit(shape, 10**12, Deployment(64, tensor_parallel=gpus)) for gpus in (1, degree))
    assert degree * shared.weights_bytes_per_gpu >= one.weights_bytes_per_gpu
    assert degree * shared.kv_bytes_per_request_per_gpu >= one.kv_bytes_per_request_per_gpu
    assert shared.weights_bytes_per_gpu < 1.06 * one.weights_bytes_per_gpu / degree  # copied: norms, at most KV heads


def test_tensor_parallel_batches_count_each_request_once() -> None:
    shape = find_shape("llama-3-8b")
    one, two = (fit(shape, 80 * GIB, Deployment(1024, tensor_parallel=degree)) for degree in (1, 2))
    assert one.largest_batch == (80 * GIB - 2 * PUBLISHED["llama-3-8b"]) // (128 * 2**20) == 520
    norms = 2 * 65 * 4096
    assert two.weights_bytes_per_gpu == (2 * PUBLISHED["llama-3-8b"] - norms) // 2 + norms
    assert two.kv_bytes_per_request_per_gpu == one.kv_bytes_per_request_per_gpu // 2
    assert two.largest_batch == 1160
    assert (one.replicated, two.replicated) == ((), ("norms",))


def test_kv_heads_are_copied_where_there_are_more_gpus() -> None:
    shape = find_shape("llama-3-8b")
    eight, sixteen = (fit(shape, 80 * GIB, Deployment(1024, tensor_parallel=degree)) for degree in (8, 16))
    assert sixteen.kv_bytes_per_request_per_gpu == eight.kv_bytes_per_request_per_gpu
    assert sixteen.replicated == ("norms", "each KV head on 2 GPUs")
    assert replicated(find_shape("mixtral-8x7b"), 2, 1) == ("norms", "routers")
    gpt2 = shape_of({**CONFIGS["gpt2"], "vocab_size": 64}, "a test")
    narrow = shape_of(complete({**VARIANTS["opt with narrow embeddings"], "vocab_size": 64}), "a test")
    assert "projections of embeddings" in replicated(narrow, 2, 1)
    assert replicated(gpt2, 2, 1) == ("norms", "positions", "biases of output projections")


@pytest.mark.parametrize(
    ("name", "degree", "message"),
    [
        ("llama-3-8b", 3, r"of 3 does not divide the model's 32 query heads; choose a divisor of 32"),
        ("llama-3-8b", 0, r"is 0; it must be at least 1"),
        ("smollm2-135m", 2, r"9 query heads"),
    ],
)
def test_a_degree_that_does_not_divide_the_heads_is_refused(name: str, degree: int, message: str) -> None:
    with pytest.raises(InferometerError, match=message):
        fit(find_shape(name), 80 * GIB, Deployment(1024, tensor_parallel=degree))


def test_a_degree_between_that_neither_divides_nor_copies_kv_heads_is_refused() -> None:
    shape = tiny_shape(num_attention_heads=12, num_key_value_heads=6, hidden_size=48, intermediate_size=48)
    with pytest.raises(InferometerError, match="neither divides the model's 6 KV heads nor is a multiple"):
        fit(shape, GIB, Deployment(8, tensor_parallel=4))


def test_pipeline_stages_hold_their_layers_and_a_tied_head_is_a_second_embedding() -> None:
    tied, untied = tiny_shape(tie_word_embeddings=True), tiny_shape()
    embedding, layer = 2 * 64 * 32, 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48 + 2 * 32)
    for shape in (tied, untied):
        found = fit(shape, 10**6, Deployment(8, pipeline_parallel=3))
        assert found.weights_bytes_per_gpu == layer + embedding + 2 * 32, "the last stage: a layer, its norm, the head"
        assert found.kv_bytes_per_request_per_gpu == 2 * 8 * 2 * 8 * 2
    assert fit(tied, 0, Deployment(8, pipeline_parallel=3)).replicated == (
        "the embedding, as the output head of the last stage",
    )
    two = fit(untied, 10**6, Deployment(8, pipeline_parallel=2))
    assert two.weights_bytes_per_gpu == 2 * layer + embedding, "the first stage takes the odd layer"
    for stages in (0, 4):
        with pytest.raises(InferometerError, match=f"3 layers can't be cut into {stages} pipeline stages"):
            fit(tied, GIB, Deployment(8, pipeline_parallel=stages))


def test_a_model_larger_than_the_device_has_a_batch_of_0_and_a_shortfall() -> None:
    found = fit(find_shape("llama-3-70b"), 80 * GIB, Deployment(4096))
    assert found.largest_batch == 0
    assert found.shortfall_bytes / GIB == pytest.approx(141_107_412_992 / GIB + 1.25 - 80)


def test_reserve_overhead_and_workspace_are_taken_off() -> None:
    shape = find_shape("llama-3-8b")
    plan = Deployment(1024, reserve_share=0.1, overhead_bytes=GIB, workspace_tokens=2048)
    found = fit(shape, 80 * GIB, plan)
    assert found.available_bytes_per_gpu == 71 * GIB
    widest = 2 * 4096 + 2 * 14336 + 4096
    assert workspace_bytes_per_token(shape, "bfloat16") == 2 * widest
    assert found.workspace_bytes_per_gpu == 2048 * 2 * widest
    assert found.request_bytes_per_gpu == 128 * 2**20 + 4 * 128_256
    for wrong in (Deployment(1024, overhead_bytes=-1), Deployment(1024, workspace_tokens=-1)):
        with pytest.raises(InferometerError, match=r"is -1; it must be at least 0"):
            fit(shape, 80 * GIB, wrong)
    with pytest.raises(InferometerError, match=r"the reserve is 1\.5"):
        fit(shape, 80 * GIB, Deployment(1024, reserve_share=1.5))


def test_the_scheme_of_weights_counts_on_each_gpu() -> None:
    shape, entry = find_shape("llama-3-8b"), {"weights": {"bits": 4, "granularity": "per_group", "group_size": 128}}
    one = fit(shape, 80 * GIB, Deployment(1024, scheme=entry))
    assert one.weights_bytes_per_gpu == weight_bytes(shape, "bfloat16", entry).total_bytes
    four = fit(shape, 80 * GIB, Deployment(1024, tensor_parallel=4, scheme=entry))
    norms = 2 * 65 * 4096
    assert 4 * (four.weights_bytes_per_gpu - norms) == one.weights_bytes_per_gpu - norms
    staged = fit(shape, 0, Deployment(1024, pipeline_parallel=32, scheme={**entry, "keep": ["model.layers.31.*"]}))
    assert (
        staged.weights_bytes_per_gpu > fit(shape, 0, Deployment(1024, pipeline_parallel=32)).weights_bytes_per_gpu / 2
    )


# --- catalogue and command line ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", gpu_names())
def test_a_gpu_states_memory_bandwidth_and_peaks_with_a_source(name: str) -> None:
    device = gpu(name)
    assert device.source.startswith("NVIDIA")
    assert str(round(device.memory_gib)) in device.name
    assert device.memory_bytes == device.memory_gib * GIB
    assert 1e11 < device.bandwidth_bytes_per_s < 1e13
    assert device.peak_per_s["float16"] > device.peak_per_s["float32"]
    assert 50 < device.ridge("float16") < 500


def test_an_unknown_gpu_or_model_is_named_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InferometerError, match=r"'h900'; it has a100-40gb, "):
        gpu("h900")
    with pytest.raises(InferometerError, match=r"'llama-9' is neither a shipped model \(llama-2-7b, "):
        find_shape("llama-9")
    (tmp_path / "config.json").write_text("not JSON", encoding="utf-8")
    with pytest.raises(InferometerError, match=r"config\.json can't be read"):
        find_shape(str(tmp_path))
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InferometerError, match=r"holds no fields"):
        config_file(tmp_path / "config.json")


def test_a_local_model_is_found_by_its_folder_or_its_config(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "model")
    expected = meta_model(CONFIGS["llama"] | {"vocab_size": 64}).num_parameters()
    for path in (folder, folder / "config.json"):
        assert find_shape(str(path)).parameters == expected


def test_a_model_on_the_hub_is_fetched_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def fetch_file(*arguments: str) -> Path:
        asked.append(arguments)
        (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
        return tmp_path / "config.json"

    monkeypatch.setattr("inferometer.sources.hub.fetch_file", fetch_file)
    assert find_shape("someone/llama").parameters == PUBLISHED["llama-3-8b"]
    find_shape("someone/llama@abc")
    assert asked == [("someone/llama", "main", "config.json"), ("someone/llama", "abc", "config.json")]


COMMAND = ["--model", "llama-3-8b", "--gpu", "h100-80gb", "--context", "8192", "--tensor-parallel", "4"]


def test_the_command_line_loads_neither_torch_nor_transformers_nor_pandas() -> None:
    code = (
        "import runpy, sys\n"
        "try: runpy.run_module('inferometer.capacity', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "sys.exit(' '.join({'torch', 'transformers', 'pandas', 'huggingface_hub'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *COMMAND, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["largest_batch"] == 305
    assert facts["parameters"] == PUBLISHED["llama-3-8b"]
    assert facts["kv_gib_per_request_per_gpu"] == 0.25
    assert facts["replicated"] == ["norms"]


def test_the_command_line_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name.strip(): value.strip() for name, value in lines.items()}["largest batch"] == "305"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "llama-3-8b", "--gpu", "h100-80gb", "--context", "0"], "the context is 0 tokens"),
        (["--model", "llama-3-8b", "--gpu", "h900", "--context", "8"], "'h900'"),
        ([*COMMAND[:-1], "3"], "does not divide the model's 32 query heads"),
    ],
)
def test_the_command_line_ends_with_a_sentence_where_the_input_is_at_fault(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err
    assert output.out == ""
