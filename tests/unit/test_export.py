"""Exported checkpoints: transformers loads them by itself, with the very weights that were measured."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from inferometer.errors import InferometerError
from inferometer.export.checkpoint import export
from inferometer.folding import folded, relative_error
from inferometer.preparation import Preparation
from inferometer.quantization.model import QuantizedLayer, quantized
from inferometer.quantization.simulated import ActivationRounder, SimulatedIntegerLinear, SimulatedLinear
from inferometer.schemes import Scheme
from inferometer.smoothing.fold import folding_changes
from inferometer.smoothing.sites import find_sites
from tests.tiny import CONFIGS, tiny_checkpoint

Entry = dict[str, Any]

PER_CHANNEL, PER_TOKEN = {"granularity": "per_channel"}, {"granularity": "per_token"}
STATIC = {"bits": 8, "granularity": "per_tensor", "range": "static"}
GROUPS = {"granularity": "per_group", "group_size": 16}
FP8 = {"format": "fp8_e4m3"}

# Nothing of these is rounded otherwise by the format, so that logits agree to the last digits of float sums, where both
# multiply rounded values.
EXACT: dict[str, Entry] = {
    "w8a16": {"weights": {"bits": 8, **PER_CHANNEL}},
    "w8a8-static": {"weights": {"bits": 8, **PER_CHANNEL}, "activations": STATIC},
    "w8a8-static-asymmetric": {
        "weights": {"bits": 8, **PER_CHANNEL, "symmetric": False},
        "activations": {**STATIC, "symmetric": False},
    },
    "w4a16": {"weights": {"bits": 4, **PER_CHANNEL, "clip": "mse"}},
    "w4a16-tensor": {"weights": {"bits": 4, "granularity": "per_tensor", "symmetric": False}},
    "w4a16-g16-gptq": {"weights": {"bits": 4, **GROUPS, "symmetric": False, "clip": "mse", "rounding": "gptq"}},
    "w3a16": {"weights": {"bits": 3, **PER_CHANNEL, "symmetric": False}},
    "w4a4": {"weights": {"bits": 4, **PER_CHANNEL}, "activations": {"bits": 4, **PER_TOKEN, "symmetric": False}},
    "fp8": {"weights": {**FP8, **PER_CHANNEL}, "activations": {**FP8, **PER_TOKEN}},
    "fp8-tensor": {"weights": {**FP8, "granularity": "per_tensor"}},
    "fp8-g16": {"weights": {**FP8, **GROUPS}, "activations": {**FP8, **GROUPS}},
    "mxfp8": {"weights": {"format": "mxfp8"}},
    "mxfp4": {"weights": {"format": "mxfp4"}},
    "kept": {"weights": {"bits": 8, **PER_CHANNEL}, "keep": ["model.layers.0.*", "*.down_proj"]},
    "float": {},
}
W8A8: Entry = {"weights": {"bits": 8, **PER_CHANNEL}, "activations": {"bits": 8, **PER_TOKEN}}
W8A8_TENSOR: Entry = {
    "weights": {"bits": 8, "granularity": "per_tensor"},
    "activations": {"bits": 8, "granularity": "per_tensor"},
}
TOKENS = torch.randint(64, (2, 20), generator=torch.Generator().manual_seed(5))
WINDOWS = [torch.randint(64, (1, 40), generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
FLOAT_SUMS = 1e-6
CODES_TURNED = 0.02  # by last digits of sums, where ours are those of codes and the format's those of rounded values


@pytest.fixture(autouse=True)
def _wide_enough_for_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 32 must fit into rows."""
    for kind in ("llama", "qwen2"):
        monkeypatch.setitem(CONFIGS[kind], "intermediate_size", 64)


def _checkpoint(tmp_path: Path, kind: str, *, outliers: bool = True) -> Path:
    return tiny_checkpoint(tmp_path / "checkpoint", kind, outliers=outliers)


def _loaded(folder: Path, dtype: str = "auto") -> PreTrainedModel:
    """As anyone would load it, with no hint of what it is."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.requires_grad_(False)
    return model


def _exported(
    model: PreTrainedModel, checkpoint: Path, entry: Entry, smoothing: Mapping[str, Tensor] | None = None
) -> Path:
    folder = checkpoint.parent / "exported"
    export(model, Scheme.of("s", entry), _preparation(model, smoothing), sorted(checkpoint.iterdir()), folder)
    return folder


def _preparation(model: PreTrainedModel, smoothing: Mapping[str, Tensor] | None = None) -> Preparation:
    if smoothing is None:
        return Preparation([], {}, WINDOWS)
    sites, _ = find_sites(model)
    return Preparation(folding_changes(model, sites, smoothing), {}, WINDOWS)


@torch.no_grad()
def _compare(
    model: PreTrainedModel,
    loaded: PreTrainedModel,
    entry: Entry,
    smoothing: Mapping[str, Tensor] | None = None,
    inputs: Callable[[Tensor], Tensor] | None = None,
    *,
    codes: bool = False,
) -> float:
    """Error of the loaded model's logits against the simulated ones; `inputs` rounds activations in their place.

    The format multiplies rounded values. So does what it is held against, unless `codes` are to be multiplied where
    the scheme has an integer product. Fails where a rounded weight is another than the simulated one.
    """
    logits = loaded(TOKENS).logits
    preparation = _preparation(model, smoothing)
    with folded(preparation.changes), quantized(model, Scheme.of("s", entry), WINDOWS, {}) as layers:
        for name, layer in layers.items():
            weight = _weight(layer)
            assert torch.equal(loaded.get_parameter(f"{name}.weight").to(model.dtype), weight), name
            rounder = ActivationRounder(layer.inputs.grid, layer.inputs.static) if layer.inputs else None
            if not codes:
                model.set_submodule(name, SimulatedLinear(weight, layer.reference.bias, inputs or rounder))
        assert bool(layers) == bool(entry)
        return relative_error(logits, model(TOKENS).logits)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("name", EXACT)
def test_a_plain_load_gives_the_simulated_logits(name: str, kind: str, tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, kind)
    model = _loaded(checkpoint)
    loaded = _loaded(_exported(model, checkpoint, EXACT[name]))
    assert _compare(model, loaded, EXACT[name]) <= FLOAT_SUMS
    on_codes = name in ("w8a8-static", "w4a4")
    assert _compare(model, loaded, EXACT[name], codes=True) <= (CODES_TURNED if on_codes else FLOAT_SUMS)


def _by_the_format(per_tensor: bool) -> Callable[[Tensor], Tensor]:
    """What compressed-tensors does to dynamic symmetric inputs: codes -128 ... 127, and a step of absmax / 127.5."""

    def rounded(values: Tensor) -> Tensor:
        absmax = values.abs().amax() if per_tensor else values.abs().amax(dim=-1, keepdim=True)
        step = absmax / 127.5
        return (values / step).clamp(-128, 127).round() * step

    return rounded


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("entry", [W8A8, W8A8_TENSOR], ids=["per_token", "per_tensor"])
def test_dynamic_symmetric_inputs_have_the_step_of_the_format_and_all_else_is_ours(
    entry: Entry, kind: str, tmp_path: Path
) -> None:
    checkpoint = _checkpoint(tmp_path, kind, outliers=False)
    model = _loaded(checkpoint)
    loaded = _loaded(_exported(model, checkpoint, entry))
    assert _compare(model, loaded, entry, inputs=_by_the_format(entry is W8A8_TENSOR)) <= FLOAT_SUMS
    assert FLOAT_SUMS < _compare(model, loaded, entry, codes=True) < 0.03  # a step 0.4 % smaller rounds other values up


@pytest.mark.parametrize("entry", [{}, W8A8, EXACT["w4a16-g16-gptq"]], ids=["float", "w8a8", "gptq"])
def test_smoothing_is_folded_in(entry: Entry, tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, "llama")
    model = _loaded(checkpoint)
    generator = torch.Generator().manual_seed(1)
    sites, _ = find_sites(model)
    factors = {site.name: 0.5 + torch.rand(32, generator=generator) for site in sites}
    loaded = _loaded(_exported(model, checkpoint, entry, factors))
    for site in sites:
        before, after = (owner.get_submodule(site.name).get_parameter("weight") for owner in (model, loaded))
        assert torch.equal(after, before / factors[site.name])
    inputs = _by_the_format(per_tensor=False) if entry is W8A8 else None
    assert _compare(model, loaded, entry, factors, inputs) <= FLOAT_SUMS
    if not entry:
        with torch.no_grad():
            assert relative_error(loaded(TOKENS).logits, model(TOKENS).logits) < 1e-5


@torch.no_grad()
def test_nvfp4_is_for_models_in_bfloat16(tmp_path: Path) -> None:
    entry = {"weights": {"format": "nvfp4"}}
    checkpoint = _checkpoint(tmp_path, "llama")
    with pytest.raises(InferometerError, match="set the `dtype` of the model to bfloat16"):
        _exported(_loaded(checkpoint), checkpoint, entry)
    model = _loaded(checkpoint, "bfloat16")
    loaded = _loaded(_exported(model, checkpoint, entry))
    assert loaded.dtype == torch.bfloat16
    logits = loaded(TOKENS).logits
    with quantized(model, Scheme.of("s", entry), [], {}) as layers:
        for name, layer in layers.items():
            assert isinstance(layer.module, SimulatedLinear)
            decoded = loaded.get_parameter(f"{name}.weight")
            differing = decoded != layer.module.weight
            assert differing.float().mean() < 0.1, "only ties may be rounded to the other side"
            torch.testing.assert_close(decoded, layer.module.weight, rtol=2**-7, atol=0)
            layer.module.weight = decoded
        assert relative_error(logits, model(TOKENS).logits) <= FLOAT_SUMS


@pytest.mark.parametrize("name", ["w4a16", "w4a16-g16-gptq", "fp8"])
def test_a_model_in_bfloat16_is_exported_with_scales_that_only_float32_holds(name: str, tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, "llama", outliers=False)
    model = _loaded(checkpoint, "bfloat16")
    folder = _exported(model, checkpoint, EXACT[name])
    stored = load_file(folder / "model.safetensors")
    assert stored["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert stored["model.layers.0.mlp.up_proj.weight_scale"].dtype == torch.float32
    loaded = _loaded(folder)
    assert loaded.dtype == torch.float32
    assert _compare(model, loaded, EXACT[name]) < 0.06  # ours also sums in bfloat16, and rounds what it reads to it


def _nibbles(packed: Tensor) -> Tensor:
    """Four-bit numbers in the order of the bits, the low ones first: the oracle of both packings."""
    data = packed.contiguous().view(torch.uint8)
    return torch.stack((data & 15, data >> 4), dim=-1).flatten(-2)


def test_codes_lie_in_the_bits_that_the_format_says(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, "llama")
    model, up = _loaded(checkpoint), "model.layers.1.mlp.up_proj"
    stored = load_file(_exported(model, checkpoint, EXACT["w4a16-g16-gptq"]) / "model.safetensors")
    codes = _nibbles(stored[f"{up}.weight_packed"]).float().unflatten(1, (2, 16))
    assert stored[f"{up}.weight_shape"].tolist() == [64, 32]
    zeros = _nibbles(stored[f"{up}.weight_zero_point"].T).T.float()[..., None]
    with quantized(model, Scheme.of("s", EXACT["w4a16-g16-gptq"]), WINDOWS, {}) as layers:
        expected = _weight(layers[up])
    assert torch.equal(((codes - zeros) * stored[f"{up}.weight_scale"][..., None]).flatten(1), expected)

    stored = load_file(_exported(model, checkpoint, EXACT["mxfp4"]) / "model.safetensors")
    values = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6, 0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    elements = values[_nibbles(stored[f"{up}.weight_packed"]).long()]
    scale = 2.0 ** (stored[f"{up}.weight_scale"].float() - 127)
    with quantized(model, Scheme.of("s", EXACT["mxfp4"]), [], {}) as layers:
        expected = _weight(layers[up])
    assert torch.equal(elements * scale, expected)


def _weight(layer: QuantizedLayer) -> Tensor:
    assert isinstance(layer.module, SimulatedLinear | SimulatedIntegerLinear)
    return layer.module.weight


@pytest.mark.parametrize("name", ["w8a16", "w4a16", "w4a16-g16-gptq", "w3a16", "fp8", "mxfp8", "mxfp4", "kept"])
def test_files_have_the_bytes_that_the_scheme_counts(name: str, tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, "llama")
    model = _loaded(checkpoint)
    file = _exported(model, checkpoint, EXACT[name]) / "model.safetensors"
    header = int.from_bytes(file.read_bytes()[:8], "little") + 8
    with quantized(model, Scheme.of("s", EXACT[name]), WINDOWS, {}) as layers:
        rounded = sum(layer.stored_bytes for layer in layers.values())
        parameters = {id(tensor): tensor.nbytes for tensor in model.parameters()}
        floats = sum(parameters.values()) - sum(_weight(layer).nbytes for layer in layers.values())
        weights = sum(_weight(layer).numel() for layer in layers.values())
    names = load_file(file)
    shapes = 16 * sum(name.endswith("_shape") for name in names)
    half_scales = 2 * weights // 16 if "g16" in name else 0  # ours are float16, the file's float32
    # Zero points of a channel are counted with their bits in ours; packed words are whole in the file.
    slack = 4 * sum(tensor.numel() for own, tensor in names.items() if own.endswith("zero_point"))
    assert abs(file.stat().st_size - header - rounded - floats - shapes - half_scales) <= slack


def test_the_configuration_says_what_is_rounded_and_the_rest_comes_along(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, "llama")
    model = _loaded(checkpoint)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folder = _exported(model, checkpoint, EXACT["kept"])
    config = json.loads((folder / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert quantization["quant_method"] == "compressed-tensors"
    assert quantization["format"] == "pack-quantized"
    kept = {name for name in quantization["ignore"] if "layers.0." in name or "down_proj" in name}
    assert set(quantization["ignore"]) == {*kept, "lm_head"}
    assert len(kept) == 7 + 2
    assert config == json.loads((checkpoint / "config.json").read_text())
    assert {file.name for file in folder.iterdir()} == {file.name for file in checkpoint.iterdir()}
    assert AutoTokenizer.from_pretrained(folder)("word1 word7").input_ids
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "quantization_config" not in json.loads((_exported(model, checkpoint, {}) / "config.json").read_text())


def test_the_integer_engine_is_exported_with_the_same_bytes(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, "llama")
    model = _loaded(checkpoint)
    simulated = (_exported(model, checkpoint, W8A8) / "model.safetensors").read_bytes()
    assert (_exported(model, checkpoint, {**W8A8, "engine": "integer"}) / "model.safetensors").read_bytes() == simulated


def _with(entry: Entry, part: str, **changes: object) -> Entry:
    return {**entry, part: {**entry[part], **changes}}


REFUSED: list[tuple[Entry, str, str]] = [
    ({"weights": {"format": "nf4"}, "engine": "bitsandbytes"}, "engine", "scheme of another engine"),
    ({**W8A8, "rotation": {"seed": 0}}, "rotation", "rotated as the model runs"),
    (_with(W8A8, "activations", outlier_threshold=6.0), "activations.outlier_threshold", "leave it out"),
    (_with(W8A8, "activations", clip="mse"), "activations.clip", "use absmax"),
    (_with(W8A8, "activations", bits=4), "activations.symmetric", "set it to false"),
    ({**W8A8, "activations": {"format": "nvfp4"}}, "activations.format", "round weights only"),
    ({**W8A8, "activations": {"format": "mxfp8"}}, "activations.format", "round weights only"),
    ({**W8A8, "activations": {"format": "fp8_e5m2", **PER_TOKEN}}, "activations.format", "no fp8_e5m2"),
    ({"activations": W8A8["activations"]}, "activations", "add `weights`"),
    ({"weights": {"format": "fp8_e5m2", **PER_CHANNEL}}, "weights.format", "no fp8_e5m2"),
    ({"weights": {"bits": 9, **PER_CHANNEL}}, "weights.bits", "at most 8 bits"),
    ({**W8A8, "weights": {"format": "mxfp4"}}, "weights.format", "to bfloat16"),
]


@pytest.mark.parametrize(("entry", "key", "advice"), REFUSED)
def test_what_the_format_can_not_hold_is_refused_with_the_reason(
    entry: Entry, key: str, advice: str, tmp_path: Path
) -> None:
    checkpoint = _checkpoint(tmp_path, "llama")
    with pytest.raises(InferometerError) as caught:
        _exported(_loaded(checkpoint), checkpoint, entry)
    sentence = str(caught.value)
    assert sentence.startswith(f"configuration key `schemes.s.{key}` ")
    assert advice in sentence
    assert sentence.endswith(".")
    assert not (tmp_path / "exported").exists()


def test_layers_of_another_layout_are_exported_in_float_only(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, "gpt2")
    model = _loaded(checkpoint)
    with pytest.raises(InferometerError, match="is a Conv1D"):
        _exported(model, checkpoint, W8A8)
    assert _compare(model, _loaded(_exported(model, checkpoint, {})), {}) <= FLOAT_SUMS


@pytest.mark.parametrize("fault", [0, 31, 64 * 32 - 1])
def test_a_single_wrong_code_is_noticed_and_nothing_is_written(
    fault: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = _checkpoint(tmp_path, "llama")
    model = _loaded(checkpoint)

    def faulty(codes: Tensor, bits: int) -> Tensor:
        wrong = codes.flatten().clone()
        place = min(fault, wrong.numel() - 1)
        wrong[place] = wrong[place] + 1 if wrong[place] < 7 else 0
        result: Tensor = pack_to_int32(wrong.reshape(codes.shape), bits)
        return result

    monkeypatch.setattr("inferometer.export.layers.pack_to_int32", faulty)
    with pytest.raises(InferometerError, match=r"layer model\.layers\.0\.self_attn\.q_proj can't be exported"):
        _exported(model, checkpoint, EXACT["w4a16"])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
