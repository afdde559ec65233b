"""Opening a fetched model, and finding its parts without knowing its class.

Only `sources` writes checkpoints; everything else opens them through here, offline.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from inferometer.device import Device, out_of_memory
from inferometer.errors import InferometerError
from inferometer.files import sha256_of
from inferometer.manifest import Manifest
from inferometer.sources.reasons import reason_of

transformers_logging.disable_progress_bar()

Linear = nn.Linear | Conv1D

RANDOM_BLOCK = 2**20 - 3  # values; no multiple of a width, so that rows of a matrix differ
RANDOM_STD = 0.02  # as transformers draws them for most models

LARGEST_KEPT_BYTES = 2**31  # of a checkpoint: what runs a larger model takes so long that opening it counts for little

_kept: dict[tuple[Manifest, Path, str], PreTrainedModel] = {}


def _check_files(manifest: Manifest, checkpoint: Path, weights: bool) -> None:
    """Hold a checkpoint against its manifest: all sizes, and digests of what is read, which may include `weights`."""
    anew = f"delete {checkpoint} and run again, so that the model is fetched anew."
    for file in manifest.files:
        path = checkpoint / file.name
        size = path.stat().st_size if path.exists() else None
        if size != file.bytes:
            state = "is missing" if size is None else f"has {size} bytes instead of {file.bytes}"
            raise InferometerError(f"{path} {state}; {anew}")
    read = [file for file in manifest.files if weights or not file.name.endswith(".safetensors")]
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        digests = pool.map(lambda file: sha256_of(checkpoint / file.name), read)
        for file, digest in zip(read, digests, strict=True):
            if digest != file.sha256:
                raise InferometerError(f"{checkpoint / file.name} was changed since it was fetched; {anew}")


def check_nothing_is_missing(loading: Mapping[str, Any], what: str) -> None:
    """Raise InferometerError where transformers had to invent tensors; `loading` is its own account."""
    invented = sorted({*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])})
    if invented:
        raise InferometerError(
            f"{what} does not hold {invented[0]} in the shape that its configuration calls for "
            f"({len(invented)} such tensors in all); they would be random, so get the whole model."
        )


def load_tokenizer(manifest: Manifest, checkpoint: Path) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises InferometerError when the checkpoint is not as it was fetched."""
    _check_files(manifest, checkpoint, weights=False)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            checkpoint, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # it stumbles over whatever is wrong with its files
        raise InferometerError(
            f"{manifest.name} has no tokenizer that can be read without running foreign code ({reason_of(error)}); "
            "choose another model."
        ) from error
    tokenizer.model_max_length = 2**62  # whole corpora are tokenized at once and cut into windows afterwards
    return tokenizer


def _random_model(config: PreTrainedConfig, dtype: torch.dtype, seed: int) -> PreTrainedModel:
    """A model of a configuration whose matrices hold one block of seeded normal values again and again.

    Only shapes are measured of such models, and to draw a billion values would take longer than to measure them.
    """
    with no_init_weights():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    generator = torch.Generator().manual_seed(seed)
    block = RANDOM_STD * torch.randn(RANDOM_BLOCK, generator=generator).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            values = parameter.view(-1)
            for piece in values.split(RANDOM_BLOCK):
                piece.copy_(block[: len(piece)])
    model.tie_weights()  # which making a model without initialization leaves out
    return model


def keep_open(manifest: Manifest, checkpoint: Path, dtype: str) -> None:
    """Open a small model, and no other, in main memory, so that `load_model` finds it in this process and its forks.

    This process must not compute with it, since a fork can't take the threads along that torch would start.
    Raises InferometerError as `load_model` does.
    """
    key = _key(manifest, checkpoint, dtype)
    if key not in _kept:
        _kept.clear()
        if sum(file.bytes for file in manifest.files) <= LARGEST_KEPT_BYTES:
            torch.set_num_threads(1)
            _kept[key] = _opened(manifest, checkpoint, dtype)


def _key(manifest: Manifest, checkpoint: Path, dtype: str) -> tuple[Manifest, Path, str]:
    return manifest, checkpoint.resolve(), manifest.dtype if dtype == "auto" else dtype


def load_model(manifest: Manifest, checkpoint: Path, device: Device, dtype: str = "auto") -> PreTrainedModel:
    """The model in evaluation mode on a device, in its own dtype unless `dtype` names another.

    Weights are touched once, so that memory-mapped pages count as the model's, not the first measurement's.
    Raises InferometerError when the checkpoint is not as it was fetched or lacks tensors.
    """
    model = _kept.pop(_key(manifest, checkpoint, dtype), None) or _opened(manifest, checkpoint, dtype)
    module: nn.Module = model
    module.to(device.torch_device)
    for parameter in model.parameters():
        parameter.sum()
    return model


def _opened(manifest: Manifest, checkpoint: Path, dtype: str) -> PreTrainedModel:
    """The model in evaluation mode in main memory, of a checkpoint that is as it was fetched."""
    _check_files(manifest, checkpoint, weights=True)
    if manifest.random_weights:
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
        assert manifest.seed is not None
        own = getattr(torch, manifest.dtype if dtype == "auto" else dtype)
        model = _random_model(config, own, manifest.seed)
    else:
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                checkpoint,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # said in a sentence of our own
                output_loading_info=True,
            )
        except Exception as error:  # it stumbles over whatever is wrong with its files
            if out_of_memory(error):  # for profiling a row with its reason, and no fault of the files
                raise
            raise InferometerError(
                f"{manifest.name} can't be loaded as transformers loads models ({reason_of(error)}); choose another "
                "model."
            ) from error
        model, loading = loaded
        check_nothing_is_missing(loading, f"the checkpoint {checkpoint}")
    model.config.use_cache = False
    module: nn.Module = model
    module.requires_grad_(False).eval()
    return model


def weights_bytes(model: PreTrainedModel) -> int:
    """Exact bytes of all parameters and buffers, shared ones once."""
    tensors = {tensor.data_ptr(): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def linear_layers(model: PreTrainedModel) -> dict[str, Linear]:
    """Every linear layer by its module name, in order of definition, the output head included.

    Raises InferometerError when matrices lie packed elsewhere, where they would stay in float unnoticed.
    """
    for name, module in model.named_modules():
        packed = [own for own, tensor in module.named_parameters(recurse=False) if tensor.ndim > 2]
        if packed and not isinstance(module, nn.Conv1d):
            raise InferometerError(
                f"the model packs several matrices into {name}.{packed[0]}, as mixtures of experts do; "
                "their calibration and quantization are not supported."
            )
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def quantizable_layers(model: PreTrainedModel) -> dict[str, Linear]:
    """The linear layers in the decoder: all but the output head, which stays in float as is usual."""
    head = model.get_output_embeddings()
    return {name: module for name, module in linear_layers(model).items() if module is not head}


def weight_matrix(layer: Linear) -> Tensor:
    """A layer's weight as [outputs, inputs]; Conv1D (GPT-2) stores it the other way round."""
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight


def token_windows(tokens: Tensor, window_tokens: int, max_windows: int | str, what: str) -> Iterator[Tensor]:
    """Cut a token sequence [tokens] into non-overlapping windows [1, window_tokens], the tail dropped.

    Raises InferometerError, naming the corpus by `what`, when the text does not fill one window.
    """
    available = tokens.numel() // window_tokens
    if available == 0:
        raise InferometerError(
            f"{what} has {tokens.numel()} tokens, fewer than one window of {window_tokens}; "
            "use a longer text or a shorter window."
        )
    count = available if max_windows == "all" else min(int(max_windows), available)
    return iter(tokens[: count * window_tokens].view(count, 1, window_tokens))


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Tensor:
    """All texts joined by two newlines and tokenized once, as the tokenizer does it: int64 [tokens]."""
    encoded: Any = tokenizer("\n\n".join(texts), return_tensors="pt")
    tokens: Tensor = encoded["input_ids"][0]
    return tokens
