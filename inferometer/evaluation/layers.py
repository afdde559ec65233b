"""How far every rounded layer is off: signal-to-quantization-noise ratios of weights and of outputs."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.models import weight_matrix
from inferometer.quantization.model import QuantizedLayer
from inferometer.quantization.noise import sqnr_db


@torch.inference_mode()
def layer_fidelity(model: PreTrainedModel, layers: Mapping[str, QuantizedLayer], tokens: Tensor) -> pd.DataFrame:
    """Rows of the LAYERS table for the rounded layers of a model, from one forward pass over `tokens` [1, tokens].

    A layer's output is compared with that of its float counterpart on the same input, so that the noise is its own and
    not that of the layers before.
    """
    found: dict[str, float] = {}

    def hook(name: str, layer: QuantizedLayer) -> Any:
        def compare(_module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            expected = nn.functional.linear(arguments[0], weight_matrix(layer.reference), layer.reference.bias)
            found[name] = sqnr_db(output, expected)

        return compare

    handles = [layer.module.register_forward_hook(hook(name, layer)) for name, layer in layers.items()]
    try:
        model(tokens.to(model.device))
    finally:
        for handle in handles:
            handle.remove()
    return pd.DataFrame(
        [
            {
                "layer": name,
                "weight_sqnr_db": layer.weight_sqnr_db,
                "output_sqnr_db": found[name],
                "stored_bytes": layer.stored_bytes,
                "float_bytes": weight_matrix(layer.reference).nbytes,
                "kernel": layer.kernel,
            }
            for name, layer in layers.items()
        ],
        columns=["layer", "weight_sqnr_db", "output_sqnr_db", "stored_bytes", "float_bytes", "kernel"],
    )
