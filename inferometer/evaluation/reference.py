"""The float model as a witness: its logits on every window, from its last hidden states alone.

Storing logits would take a vocabulary for each token; the output head's input takes a hidden size, and the head makes
the very same logits of it again. The model's own forward pass is used for that, so what it does after the head is done.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.blocks import decoder_blocks, run_from
from inferometer.folding import folded


@dataclass(frozen=True)
class Reference:
    """What the float model leaves for the schemes that are compared with it.

    `hidden` are its hidden states [1, tokens, hidden] of every window before the output head; `packs` says whether it
    scores endings in shared rows as in rows of their own (see `choices.can_pack`).
    """

    hidden: list[Tensor]
    packs: bool


class ReferenceHead:
    """Turns stored hidden states into the float model's logits, whatever has been done to the model since."""

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel) -> None:
        """Take note of the float model: call this before anything is folded into it or rounded."""
        self._model = model
        self._head: nn.Module = model.get_output_embeddings()
        self._weight = self._head.get_parameter("weight")
        self._blocks = list(decoder_blocks(model).values())
        self._token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        self._block_output: Any = None
        handle = self._blocks[-1].register_forward_hook(self._remember)
        model(self._token)
        handle.remove()

    def _remember(self, _block: nn.Module, _arguments: Any, output: Any) -> None:
        self._block_output = output

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [1, tokens, vocabulary] of the float model for hidden states [1, tokens, hidden] before its head."""
        handle = self._head.register_forward_pre_hook(lambda _head, _arguments: (hidden,))
        try:
            with folded([(self._head, "weight", self._weight)]):
                result: Tensor = run_from(self._model, self._blocks, self._block_output, self._token).logits
        finally:
            handle.remove()
        return result
