"""Checkpoints from local folders, GGUF files and configurations, their manifests, and opening them again."""

import hashlib
import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from inferometer.device import Device
from inferometer.errors import InferometerError
from inferometer.manifest import Manifest
from inferometer.models import load_model, load_tokenizer
from inferometer.sources.checkpoints import fetch_checkpoint
from tests.tiny import COMMON, CONFIGS, LLAMA_SHAPE, tiny_checkpoint, tiny_model

CPU = Device("cpu", "any")
WEIGHTS = "model.safetensors"
LLAMA = {**COMMON, **CONFIGS["llama"]}


def write_gguf(path: Path, model: PreTrainedModel) -> Path:
    """Write a tiny llama and a byte-level tokenizer of as many tokens as a GGUF file in float32."""
    shape = LLAMA_SHAPE
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_vocab_size(COMMON["vocab_size"])
    writer.add_context_length(COMMON["max_position_embeddings"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_rope_dimension_count(shape["hidden_size"] // shape["num_attention_heads"])
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    tokens = ["<s>", "</s>", *(chr(ord("!") + offset) for offset in range(COMMON["vocab_size"] - 3)), '!"']
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(['! "'])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape["num_hidden_layers"])
    rotated = {"q_proj": shape["num_attention_heads"], "k_proj": shape["num_key_value_heads"]}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        if heads := rotated.get(name.split(".")[-2]):  # GGUF pairs the halves of a head's rotated channels
            tensor = tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        called = names.get_name(name, (".weight",))
        assert called is not None
        writer.add_tensor(called, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _local(path: Path, **more: Any) -> dict[str, Any]:
    return {"source": "local", "path": str(path), **more}


def _architecture(config: dict[str, Any], seed: int = 0, **more: Any) -> dict[str, Any]:
    return {"source": "architecture", "config": config, "seed": seed, **more}


def _fetch(tmp_path: Path, entry: dict[str, Any], folder: str = "checkpoint") -> tuple[Manifest, Path]:
    checkpoint = tmp_path / "out" / folder
    return fetch_checkpoint("tiny", entry, checkpoint), checkpoint


def _refusal(tmp_path: Path, entry: dict[str, Any]) -> str:
    """The sentence with which a model is refused; nothing may be left where it should have stood."""
    with pytest.raises(InferometerError) as caught:
        fetch_checkpoint("tiny", entry, tmp_path / "out" / "checkpoint")
    assert list((tmp_path / "out").iterdir()) == []
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def _logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.arange(2, 12)[None]).logits
    return logits


def test_a_local_folder_is_linked_and_loads_as_the_same_model(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"a pickle")
    (source / "modeling_tiny.py").write_text("raise SystemExit")
    manifest, checkpoint = _fetch(tmp_path, _local(source))
    model = tiny_model()
    assert torch.equal(_logits(load_model(manifest, checkpoint, CPU)), _logits(model))
    assert load_tokenizer(manifest, checkpoint)("word3 word4")["input_ids"] == [7, 8]
    assert (checkpoint / WEIGHTS).resolve() == source / WEIGHTS
    assert {Path(file.name).suffix for file in manifest.files} == {".json", ".safetensors"}
    assert manifest.architecture == "LlamaForCausalLM"
    assert manifest.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (manifest.layers, manifest.hidden_size, manifest.vocabulary, manifest.context_tokens) == (
        3,
        32,
        64,
        64,
    )
    assert (manifest.dtype, manifest.random_weights, manifest.seed) == ("float32", False, None)
    for file in manifest.files:
        content = (source / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_model_in_several_parts_is_linked_counted_and_loaded(tmp_path: Path) -> None:
    model = tiny_model()
    source = tmp_path / "source"
    model.save_pretrained(source, max_shard_size="40KB")
    assert len(list(source.glob("*.safetensors"))) > 1
    manifest, checkpoint = _fetch(tmp_path, _local(source))
    assert manifest.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert torch.equal(_logits(load_model(manifest, checkpoint, CPU)), _logits(model))


def test_weights_that_are_not_opened_are_not_counted(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    (source / "adapter.safetensors").write_bytes((source / WEIGHTS).read_bytes())
    manifest, _ = _fetch(tmp_path, _local(source))
    assert manifest.parameters == sum(parameter.numel() for parameter in tiny_model().parameters())


def test_a_manifest_comes_back_as_it_was_written_and_its_bytes_are_stable(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    manifest, _ = _fetch(tmp_path, _local(source))
    again, _ = _fetch(tmp_path, _local(source), "again")
    manifest.write(tmp_path / "one.json")
    again.write(tmp_path / "two.json")
    assert Manifest.read(tmp_path / "one.json") == manifest
    Manifest.read(tmp_path / "one.json").write(tmp_path / "three.json")
    written = {(tmp_path / f"{name}.json").read_bytes() for name in ("one", "two", "three")}
    assert len(written) == 1
    assert written.pop().endswith(b"}\n")


@pytest.mark.parametrize("content", [None, "", "[]", '{"name": "tiny"}', '{"files": [{"size": 3}]}'])
def test_what_is_no_manifest_is_refused_naming_the_file(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InferometerError, match=r"manifest\.json is not a manifest of this version"):
        Manifest.read(path)


def test_a_manifest_with_any_bit_flipped_is_refused_or_reads_the_same(tmp_path: Path) -> None:
    manifest, _ = _fetch(tmp_path, _local(tiny_checkpoint(tmp_path / "source")))
    path = tmp_path / "model.json"
    manifest.write(path)
    content = path.read_bytes()
    said = []
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert Manifest.read(path) == manifest
        except InferometerError as error:
            said.append(str(error))
    assert len(said) > 0.9 * 8 * len(content)
    assert all(sentence.startswith(f"{path} is not a manifest of this version") for sentence in said)


def test_a_manifest_of_an_earlier_version_without_a_digest_is_read(tmp_path: Path) -> None:
    manifest, _ = _fetch(tmp_path, _local(tiny_checkpoint(tmp_path / "source")))
    path = tmp_path / "model.json"
    manifest.write(path)
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}))
    assert Manifest.read(path) == manifest


@pytest.mark.parametrize("file", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_checkpoint_with_one_bit_flipped_since_it_was_fetched_is_not_opened(tmp_path: Path, file: str) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    manifest, checkpoint = _fetch(tmp_path, _local(source))
    content = bytearray((source / file).read_bytes())
    content[-9] ^= 1
    (source / file).write_bytes(content)
    said = rf"checkpoint/{file} was changed since it was fetched; delete .*checkpoint and run again"
    with pytest.raises(InferometerError, match=said):
        load_model(manifest, checkpoint, CPU)
    if file != WEIGHTS:  # which a tokenizer does without
        with pytest.raises(InferometerError, match=said):
            load_tokenizer(manifest, checkpoint)


@pytest.mark.parametrize("file", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_checkpoint_with_a_missing_or_short_file_is_not_opened(tmp_path: Path, file: str) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    manifest, checkpoint = _fetch(tmp_path, _local(source))
    content = (source / file).read_bytes()
    (source / file).write_bytes(content[:-1])
    for load in (lambda: load_model(manifest, checkpoint, CPU), lambda: load_tokenizer(manifest, checkpoint)):
        with pytest.raises(InferometerError, match=f"{file} has {len(content) - 1} bytes instead of {len(content)}"):
            load()
    (source / file).unlink()
    for load in (lambda: load_model(manifest, checkpoint, CPU), lambda: load_tokenizer(manifest, checkpoint)):
        with pytest.raises(InferometerError, match=f"{file} is missing; delete .* and run again"):
            load()


@pytest.mark.parametrize("harm", ["missing", "of another shape"])
def test_weights_that_would_be_made_up_are_refused(tmp_path: Path, harm: str) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(source / WEIGHTS)
    del tensors[name]
    if harm == "of another shape":
        tensors[name] = torch.zeros(3, 3)
    save_file(tensors, source / WEIGHTS, {"format": "pt"})
    manifest, checkpoint = _fetch(tmp_path, _local(source))
    with pytest.raises(InferometerError, match=f"does not hold {name} in the shape .* get the whole model"):
        load_model(manifest, checkpoint, CPU)


@pytest.mark.parametrize("kept", [0, 6, 500, 100_000])
def test_truncated_safetensors_are_refused_naming_the_file(tmp_path: Path, kept: int) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    content = (source / WEIGHTS).read_bytes()
    assert kept < len(content)
    (source / WEIGHTS).write_bytes(content[:kept])
    assert f"model 'tiny': {WEIGHTS} is damaged or cut short" in _refusal(tmp_path, _local(source))


def test_safetensors_without_tensors_or_of_integers_are_refused(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    save_file({}, source / WEIGHTS)
    assert "stores its weights as no tensors at all" in _refusal(tmp_path, _local(source))
    save_file({"weight": torch.zeros(9, dtype=torch.int32)}, source / WEIGHTS)
    assert "stores its weights as I32; only F32, F16, BF16" in _refusal(tmp_path, _local(source))


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tiny_model().save_pretrained(source, max_shard_size="40KB")
    part = sorted(source.glob("*.safetensors"))[1]
    part.unlink()
    assert f"model 'tiny' lacks {part.name}" in _refusal(tmp_path, _local(source))


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": 3}'])
def test_a_damaged_index_is_named(tmp_path: Path, content: str) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    (source / WEIGHTS).unlink()
    (source / f"{WEIGHTS}.index.json").write_text(content)
    assert f"{WEIGHTS}.index.json is damaged" in _refusal(tmp_path, _local(source))


def test_a_folder_without_config_json_is_refused(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    (source / "config.json").unlink()
    sentence = _refusal(tmp_path, _local(source))
    assert f"model 'tiny': {source} has no config.json" in sentence
    assert "`path`" in sentence


@pytest.mark.parametrize("name", ["absent", "absent.gguf"])
def test_a_path_that_does_not_exist_is_refused(tmp_path: Path, name: str) -> None:
    sentence = _refusal(tmp_path, _local(tmp_path / name))
    assert f"model 'tiny': {tmp_path / name}" in sentence
    assert "`path`" in sentence


def test_a_folder_of_pickles_only_is_refused_and_no_pickle_is_opened(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    (source / WEIGHTS).rename(source / "pytorch_model.bin")
    assert "pickled weights are never read" in _refusal(tmp_path, _local(source))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "says BertForMaskedLM"),
        ({"model_type": "t5"}, "says T5Config"),
        ({"hidden_size": 32}, "model_type"),
        ({"model_type": "llama", "hidden_size": "wide"}, "'hidden_size' expected int"),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "modeling_tiny.Own"}},
            "without running foreign code",
        ),
    ],
    ids=["masked", "encoder and decoder", "no model type", "wrong type", "own code"],
)
def test_a_config_of_no_causal_model_is_refused_and_no_code_is_run(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    (source / "config.json").write_text(json.dumps(config))
    (source / "modeling_tiny.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    sentence = _refusal(tmp_path, _local(source))
    assert "model 'tiny'" in sentence
    assert said in sentence
    assert not (tmp_path / "ran").exists()


def test_a_config_that_is_not_json_is_refused(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    (source / "config.json").write_text('{"model_type"')
    assert "not a valid JSON file" in _refusal(tmp_path, _local(source))


def test_a_local_pin_holds_and_is_checked_before_anything_is_opened(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    digest = hashlib.sha256((source / WEIGHTS).read_bytes()).hexdigest()
    _fetch(tmp_path, _local(source, sha256={WEIGHTS: digest}))
    (tmp_path / "other").mkdir()
    (source / WEIGHTS).write_bytes(b"no safetensors at all")
    (source / "config.json").write_text("no JSON at all")
    sentence = _refusal(tmp_path / "other", _local(source, sha256={WEIGHTS: digest}))
    assert f"{WEIGHTS} of model 'tiny' does not match its pinned hash" in sentence
    sentence = _refusal(tmp_path / "other", _local(source, sha256={"model-2.safetensors": digest}))
    assert "model-2.safetensors" in sentence
    assert "`models.tiny.sha256`" in sentence


def test_what_stood_at_the_checkpoint_stays_when_fetching_fails(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "source")
    manifest, checkpoint = _fetch(tmp_path, _local(source))
    with pytest.raises(InferometerError):
        _fetch(tmp_path, _local(tmp_path / "absent"))
    assert torch.equal(_logits(load_model(manifest, checkpoint, CPU)), _logits(tiny_model()))


def test_a_gguf_file_becomes_safetensors_of_the_same_model(tmp_path: Path) -> None:
    model = tiny_model()
    path = write_gguf(tmp_path / "tiny.gguf", model)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest, checkpoint = _fetch(tmp_path, _local(path, sha256={path.name: digest}))
    assert WEIGHTS in {file.name for file in manifest.files}
    assert not any(file.is_symlink() for file in checkpoint.iterdir())
    assert "quantization_config" not in json.loads((checkpoint / "config.json").read_text())
    path.unlink()
    torch.testing.assert_close(_logits(load_model(manifest, checkpoint, CPU)), _logits(model))
    assert load_tokenizer(manifest, checkpoint)('!"#')["input_ids"] == [63, 4]


@pytest.mark.parametrize("kept", [0, 2, 20, 500, 50_000, 100_000])
def test_a_truncated_gguf_file_is_refused_naming_it(tmp_path: Path, kept: int) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model())
    content = path.read_bytes()
    assert kept < len(content)
    path.write_bytes(content[:kept])
    assert "model 'tiny': tiny.gguf can't be read as GGUF" in _refusal(tmp_path, _local(path))


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_model()).read_bytes()


@settings(max_examples=40)
@given(st.data())
def test_a_gguf_file_with_damaged_bytes_is_refused_in_a_sentence_or_is_another_whole_model(
    tmp_path_factory: pytest.TempPathFactory, gguf_bytes: bytes, data: st.DataObject
) -> None:
    content = bytearray(gguf_bytes)
    for _ in range(data.draw(st.integers(1, 3), "flips")):
        content[data.draw(st.integers(0, 6000), "place")] ^= 1 << data.draw(st.integers(0, 7), "bit")
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "tiny.gguf"
    path.write_bytes(content)
    try:
        manifest, checkpoint = _fetch(folder, _local(path))
    except InferometerError:
        assert "model 'tiny'" in _refusal(folder, _local(path))
    else:
        load_model(manifest, checkpoint, CPU)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(60), b"PK\x03\x04" + bytes(60), b"\xff" * 999])
def test_a_file_that_is_no_gguf_is_refused_naming_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tiny.gguf").write_bytes(content)
    assert "model 'tiny': tiny.gguf can't be read as GGUF" in _refusal(tmp_path, _local(tmp_path / "tiny.gguf"))


def test_a_gguf_file_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    fewer = tiny_model()
    fewer.model.layers = fewer.model.layers[:2]
    path = write_gguf(tmp_path / "tiny.gguf", fewer)
    assert "tiny.gguf of model 'tiny' does not hold model.layers.2" in _refusal(tmp_path, _local(path))


def test_a_gguf_file_with_a_wrong_pin_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"anything")
    sentence = _refusal(tmp_path, _local(path, sha256={path.name: "0" * 64}))
    assert "tiny.gguf of model 'tiny' does not match its pinned hash" in sentence


def _random(tmp_path: Path, seed: int, folder: str, dtype: str = "auto") -> PreTrainedModel:
    manifest, checkpoint = _fetch(tmp_path, _architecture(LLAMA, seed, dtype=dtype), folder)
    assert (manifest.random_weights, manifest.seed) == (True, seed)
    return load_model(manifest, checkpoint, CPU)


def test_an_architecture_with_the_same_seed_has_the_same_weights_and_with_another_seed_others(
    tmp_path: Path,
) -> None:
    first, again, other = (
        _random(tmp_path, seed, folder) for seed, folder in ((7, "first"), (7, "again"), (8, "other"))
    )
    pairs = [(value, again.state_dict()[name]) for name, value in first.state_dict().items()]
    assert all(torch.equal(value, copy) for value, copy in pairs)
    assert not torch.equal(_logits(first), _logits(other))


def test_an_architecture_has_no_weights_on_disk_and_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    manifest, checkpoint = _fetch(tmp_path, _architecture(LLAMA, dtype="bfloat16"))
    assert [path.name for path in checkpoint.iterdir()] == ["config.json"]
    assert manifest.dtype == "bfloat16"
    model = load_model(manifest, checkpoint, CPU)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert manifest.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gpt2", "opt", "bloom"])
def test_layers_override_the_count_of_the_configuration(tmp_path: Path, kind: str) -> None:
    config = {**COMMON, **CONFIGS[kind]}
    if kind == "qwen2":  # as transformers saves it
        config["layer_types"] = ["full_attention"] * config["num_hidden_layers"]
    whole, _ = _fetch(tmp_path, _architecture(config), "whole")
    cut, checkpoint = _fetch(tmp_path, _architecture(config, layers=2), "cut")
    assert (whole.layers, cut.layers) == (3, 2)
    assert cut.parameters < whole.parameters
    model = load_model(cut, checkpoint, CPU)
    assert model.config.num_hidden_layers == 2
    assert sum(parameter.numel() for parameter in model.parameters()) == cut.parameters


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "no-such-model"}, "no-such-model"),
        ({"model_type": "t5"}, "T5Config"),
        ({**LLAMA, "hidden_size": "wide"}, "hidden_size"),
        ({**LLAMA, "hidden_size": -4}, "-4"),
        ({**LLAMA, "num_attention_heads": 5}, "attention heads"),
        ({**LLAMA, "num_attention_heads": 0}, "zero"),
        ({**LLAMA, "hidden_act": "no-such-function"}, "no-such-function"),
        ({**CONFIGS["bloom"], "vocab_size": 64}, "max_position_embeddings"),
    ],
)
def test_a_configuration_that_makes_no_model_is_refused_naming_the_key(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    sentence = _refusal(tmp_path, _architecture(config))
    assert "`models.tiny.config`" in sentence
    assert said in sentence
    assert len(sentence) < 400


def test_a_model_whose_config_calls_its_context_a_sequence_length_is_taken(tmp_path: Path) -> None:
    manifest, _ = _fetch(tmp_path, _architecture({**CONFIGS["bloom"], "vocab_size": 64, "seq_length": 48}))
    assert manifest.context_tokens == 48
