"""Writing a model under a scheme as a checkpoint that transformers loads and that scores the same."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from inferometer.errors import InferometerError
from inferometer.export.formats import check_exportable, layer_scheme, loaded_dtype, quantization_config
from inferometer.export.layers import layer_tensors
from inferometer.files import whole_folder
from inferometer.folding import folded
from inferometer.models import Linear, linear_layers
from inferometer.preparation import Preparation
from inferometer.quantization.model import quantized
from inferometer.schemes import Scheme


@torch.no_grad()
def export(
    model: PreTrainedModel, scheme: Scheme, preparation: Preparation, files: Sequence[Path], folder: Path
) -> None:
    """Write the model under a scheme to a folder: weights, configuration, tokenizer and all else among its `files`.

    `files` are those of the checkpoint that the model was loaded from. A scheme that rounds nothing gives a plain float
    checkpoint. Either the whole folder is written or nothing; the model comes back as it was. Raises InferometerError
    when the format can't hold what the scheme does, or when a layer can't be calibrated.
    """
    check_exportable(scheme, model.dtype)
    # The integer engine has the same codes and scales, in the layouts of its kernels.
    scheme = dataclasses.replace(scheme, engine="simulated")
    linears = linear_layers(model)
    with ExitStack() as stack:
        stack.enter_context(folded(preparation.changes))
        layers = stack.enter_context(quantized(model, scheme, preparation.calibration, preparation.rotations))
        tensors, quantization = _own_tensors(model), None
        if scheme.weights is not None:
            described = layer_scheme(scheme)
            for name, layer in layers.items():
                _check_layout(name, layer.reference)
                tensors.pop(f"{name}.weight", None)  # layers that hold codes have none
                stored = layer_tensors(name, layer, scheme.weights.grid, described)
                tensors |= {f"{name}.{own}": tensor for own, tensor in stored.items()}
            quantization = quantization_config(described, [name for name in linears if name not in layers])
        partial = stack.enter_context(whole_folder(folder))
        save_file(tensors, partial / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
        for file in files:
            if file.suffix != ".safetensors" and file.name != SAFE_WEIGHTS_INDEX_NAME:
                shutil.copyfile(file, partial / file.name)
        _describe(partial / CONFIG_NAME, loaded_dtype(scheme, model.dtype), quantization)


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model, what modules share once: the loader ties them again."""
    first: dict[tuple[int, torch.Size], str] = {}
    state = model.state_dict()
    for name, tensor in state.items():
        first.setdefault((tensor.data_ptr(), tensor.shape), name)
    return {name: state[name].cpu().contiguous() for name in first.values()}


def _check_layout(name: str, layer: Linear) -> None:
    if not isinstance(layer, nn.Linear):
        raise InferometerError(
            f"layer {name} is a {type(layer).__name__}, whose weight lies the other way round than compressed-tensors "
            "reads it; of this model only schemes that round nothing can be exported."
        )


def _describe(path: Path, dtype: torch.dtype, quantization: dict[str, Any] | None) -> None:
    """Set the dtype and the quantization in a copied config.json."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for outdated in ("torch_dtype", "quantization_config"):
        config.pop(outdated, None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    if quantization is not None:
        config["quantization_config"] = quantization
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
