"""Perplexity by a named protocol.

`smoothquant` is exactly that of the SmoothQuant reference: the texts joined by two newlines and tokenized once,
non-overlapping windows, the tail dropped, the mean cross-entropy of each window, exp of the mean of window means.
"""

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from inferometer.errors import InferometerError

ROWS_AT_ONCE = 256  # of logits, so that a float copy of a large vocabulary stays small


def _window_nll(logits: Tensor, targets: Tensor) -> float:
    """Mean negative log-likelihood in nats of targets [tokens] under logits [tokens, vocabulary]."""
    parts = zip(logits.split(ROWS_AT_ONCE), targets.split(ROWS_AT_ONCE), strict=True)
    sums = [cross_entropy(rows.float(), wanted, reduction="sum").double() for rows, wanted in parts]
    return float(torch.stack(sums).sum() / targets.numel())


@torch.inference_mode()
def score_windows(model: PreTrainedModel, windows: Iterable[Tensor]) -> pd.DataFrame:
    """Score windows of token ids [1, tokens]: the columns `window`, `tokens` and `nll` of the WINDOWS table.

    Raises InferometerError when the model's logits are not numbers.
    """
    rows = []
    for index, window in enumerate(windows):
        tokens = window.to(model.device)
        logits = model(tokens).logits
        nll = _window_nll(logits[0, :-1], tokens[0, 1:])
        if nll != nll:
            raise InferometerError(
                f"the model's logits are not numbers (NaN) in window {index}; its weights may be damaged, or its "
                "dtype too narrow: set `dtype` of the model to float32 or bfloat16."
            )
        rows.append({"window": index, "tokens": tokens.shape[1] - 1, "nll": nll})
    return pd.DataFrame(rows)
