"""Massive activations: the largest values of the residual stream at the first token, layer by layer.

A few channels of the first token are thousands of times as large as the rest in many models, and the attention sinks
stand on them (Sun et al. 2024, Massive Activations in Large Language Models).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.blocks import decoder_blocks

LARGEST = 3  # channels that are kept of each layer


@contextmanager
def watching(model: PreTrainedModel) -> Iterator[list[dict[str, Any]]]:
    """Run the block with the residual stream behind every decoder layer looked at; gives the rows as they come.

    A row is one of the LARGEST channels of the first token: `layer`, `rank` from 0, `channel`, its `value`, the
    `median_magnitude` of all values of all tokens behind that layer, and the largest `later_magnitude` that the same
    channel has at any later token. For one text [1, tokens].
    """
    rows: list[dict[str, Any]] = []

    def hook(layer: int) -> Any:
        def look(_module: Any, _arguments: Any, output: Any) -> None:
            hidden: Tensor = (output if isinstance(output, Tensor) else output[0])[0].float()
            magnitudes = hidden.abs()
            median = float(magnitudes.median())
            later = magnitudes[1:].amax(dim=0) if len(hidden) > 1 else torch.zeros_like(magnitudes[0])
            for rank, channel in enumerate(magnitudes[0].topk(LARGEST).indices.tolist()):
                rows.append(
                    {
                        "layer": layer,
                        "rank": rank,
                        "channel": channel,
                        "value": float(hidden[0, channel]),
                        "median_magnitude": median,
                        "later_magnitude": float(later[channel]),
                    }
                )

        return look

    handles = [block.register_forward_hook(hook(layer)) for layer, block in enumerate(decoder_blocks(model).values())]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()
