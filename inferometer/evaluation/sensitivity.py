"""What rounding a single layer does to the model, layer by layer, with all the others in float."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.blocks import decoder_blocks, run_from
from inferometer.evaluation.divergence import kl_divergence
from inferometer.models import quantizable_layers
from inferometer.quantization.model import rounded_layer
from inferometer.schemes import Scheme


@torch.inference_mode()
def sensitivities(model: PreTrainedModel, scheme: Scheme, tokens: Tensor) -> Iterator[dict[str, Any]]:
    """For every layer that the scheme rounds: the mean KL divergence from the float model when only it is rounded.

    `tokens` are [1, tokens]. What comes before the layer's block is computed once, for all of its layers.
    """
    tokens = tokens.to(model.device)
    blocks, outputs = decoder_blocks(model), list[Any]()
    handles = [
        block.register_forward_hook(lambda *arguments: outputs.append(arguments[-1])) for block in blocks.values()
    ]
    expected = model(tokens).logits[0].float().log_softmax(dim=-1)
    for handle in handles:
        handle.remove()
    floats = quantizable_layers(model)
    names, earlier = list(blocks), list(blocks.values())
    for name in scheme.rounds(list(floats)):
        block = next((place for place, own in enumerate(names) if name.startswith(f"{own}.")), 0)
        model.set_submodule(name, rounded_layer(floats[name], scheme))
        try:
            logits = run_from(model, earlier[:block], outputs[block - 1], tokens).logits[0]
        finally:
            model.set_submodule(name, floats[name])
        predicted = logits.float().log_softmax(dim=-1)
        divergence = float(kl_divergence(expected, predicted).double().mean())
        yield {"layer": name, "kl_divergence": divergence, "tokens": tokens.shape[1]}
