"""Perplexity by a named protocol, and fidelity to the float model, from one pass over the same windows.

`smoothquant` is exactly the protocol of the SmoothQuant reference: the texts joined by two newlines and tokenized once,
non-overlapping windows, the tail dropped, the mean cross-entropy of each window, exp of the mean of window means.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.errors import InferometerError
from inferometer.evaluation.divergence import kl_divergence
from inferometer.evaluation.reference import ReferenceHead

ROWS_AT_ONCE = 32  # of logits, so that float copies of a large vocabulary stay in the caches


@dataclass(frozen=True)
class Scores:
    """What a pass over windows gives: rows of WINDOWS and of FIDELITY, and the head's inputs [1, tokens, hidden].

    `forward_s` are the seconds of the forward passes alone, without scoring.
    """

    windows: pd.DataFrame
    fidelity: pd.DataFrame
    hidden: list[Tensor]
    forward_s: float


@dataclass(frozen=True)
class _TokenScores:
    """For each predicted token: its negative log-likelihood in nats, KL divergence in nats, and agreement."""

    nll: Tensor
    kl_divergence: Tensor
    same_top_token: Tensor


def _token_scores(logits: Tensor, reference: Tensor, targets: Tensor) -> _TokenScores:
    """Scores of targets [tokens] under logits [tokens, vocabulary], against those of the float model.

    The divergence is that of the prediction from the float model's: sum p (log p - log q), with p the float model's.
    """
    parts = []
    for rows, ours, wanted in zip(*(x.split(ROWS_AT_ONCE) for x in (logits, reference, targets)), strict=True):
        predicted, expected = rows.float().log_softmax(dim=-1), ours.float().log_softmax(dim=-1)
        nll = -predicted.gather(1, wanted[:, None])[:, 0]
        same = predicted.argmax(dim=-1) == expected.argmax(dim=-1)
        parts.append((nll, kl_divergence(expected, predicted), same))
    return _TokenScores(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _logits_and_hidden(model: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [1, tokens, vocabulary], and what the output head made them of [1, tokens, hidden]."""
    hidden: list[Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda _head, arguments: hidden.append(arguments[0])
    )
    try:
        return model(tokens).logits, hidden[0]
    finally:
        handle.remove()


@torch.inference_mode()
def score_windows(
    model: PreTrainedModel,
    windows: Iterable[Tensor],
    head: ReferenceHead,
    reference: Sequence[Tensor] | None = None,
    synchronize: Callable[[], object] = lambda: None,
) -> Scores:
    """Score windows of token ids [1, tokens] against the float model.

    `reference` holds the float model's hidden states of the same windows, on any device; without it the model is its
    own reference. `synchronize` waits for the device, so that forward passes can be timed.
    Raises InferometerError when the model's logits are not numbers.
    """
    rows, tokens_scored, hidden_states, forward_s = [], [], [], 0.0
    for index, window in enumerate(windows):
        tokens = window.to(model.device)
        synchronize()
        start = time.perf_counter()
        logits, hidden = _logits_and_hidden(model, tokens)
        synchronize()
        forward_s += time.perf_counter() - start
        expected = head.logits(hidden if reference is None else reference[index].to(hidden))
        scores = _token_scores(logits[0, :-1], expected[0, :-1], tokens[0, 1:])
        nll = float(scores.nll.double().mean())
        if nll != nll:
            raise InferometerError(
                f"the model's logits are not numbers (NaN) in window {index}; its weights may be damaged, or its "
                "dtype too narrow: set `dtype` of the model to float32 or bfloat16."
            )
        hidden_states.append(hidden.cpu())
        rows.append({"window": index, "tokens": tokens.shape[1] - 1, "nll": nll})
        columns = {
            "window": index,
            "position": range(1, tokens.shape[1]),
            "nll": scores.nll.cpu(),
            "kl_divergence": scores.kl_divergence.cpu(),
            "same_top_token": scores.same_top_token.cpu(),
        }
        tokens_scored.append(pd.DataFrame(columns))
    return Scores(pd.DataFrame(rows), pd.concat(tokens_scored, ignore_index=True), hidden_states, forward_s)
