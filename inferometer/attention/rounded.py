"""What rounding weights, activations or the KV cache does to what heads look at.

Every arm reads texts in the same way: the first part as it comes, then the rest in steps that are captured. What a step
sees of earlier ones comes from the cache, so a rounded cache shows; within a step keys are as they were computed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from inferometer.attention.capture import capturing, why_none
from inferometer.attention.names import FLOAT
from inferometer.attention.trace import head_rows
from inferometer.device import Device
from inferometer.kv_cache.policies import Policy
from inferometer.kv_cache.session import Session, features_of, read_context, why_not
from inferometer.progress import progress
from inferometer.quantization.model import quantized
from inferometer.schemes import Scheme


def _captured(model: PreTrainedModel, read: Any, steps: Sequence[Tensor]) -> pd.DataFrame:
    """The heads' columns over `steps` [1, tokens], each read by `read`."""
    with capturing(model) as recorder:
        for step in steps:
            read(step)
    layers = recorder.layers()
    rows = [head_rows(layer, found, uniform=False) for layer, found in layers.items()]
    count = model.config.get_text_config().num_hidden_layers
    rows += [
        pd.DataFrame([{"layer": layer, "reason": why_none(model, layer)}])
        for layer in range(count)
        if layer not in layers
    ]
    return pd.concat(rows)


def _in_float(model: PreTrainedModel, text: Tensor, context_tokens: int, step_tokens: int) -> pd.DataFrame:
    """A text through the model with a cache in float."""
    cache: Cache = DynamicCache()  # without the configuration it keeps all tokens, also where attention slides

    @torch.inference_mode()
    def read(tokens: Tensor) -> None:
        model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)

    read(text[:, :context_tokens])
    return _captured(model, read, text[:, context_tokens:].split(step_tokens, dim=1))


def _in_cache(
    model: PreTrainedModel, policy: Policy, text: Tensor, context_tokens: int, step_tokens: int
) -> pd.DataFrame:
    """A text through the model with a cache under a policy."""
    context = read_context(model, text[:, :context_tokens], features_of([policy]))
    session = Session(model, policy)
    session.fill(context)
    before = context.logits

    def read(tokens: Tensor) -> None:
        nonlocal before
        before = session.read(model, tokens, before)[-1]

    return _captured(model, read, text[:, context_tokens:].split(step_tokens, dim=1))


def rounded_attention(
    model: PreTrainedModel,
    texts: Sequence[Tensor],
    reference: str,
    schemes: Sequence[Scheme],
    policies: Sequence[Policy],
    settings: Mapping[str, Any],
    device: Device,
) -> pd.DataFrame:
    """The ROUNDED table of texts [1, tokens]: the float model, each scheme, and each policy on the float model.

    The schemes are simple ones, that need no calibration text and have nothing folded in.
    """
    texts = [text.to(model.device) for text in texts]
    part = settings["context_tokens"], settings["step_tokens"]
    frames = []

    def keep(scheme: str, cache: str, number: int, rows: pd.DataFrame) -> None:
        frames.append(rows.assign(scheme=scheme, cache=cache, text=number))

    for number, text in enumerate(progress(texts, "reading in float")):
        keep(reference, FLOAT, number, _in_float(model, text, *part))
    for scheme in schemes:
        with quantized(model, scheme, [], {}):
            for number, text in enumerate(progress(texts, f"reading under {scheme.name}")):
                keep(scheme.name, FLOAT, number, _in_float(model, text, *part))
    for policy in policies:
        reason = why_not(model, policy)
        if reason is not None:
            layers = range(model.config.get_text_config().num_hidden_layers)
            keep(reference, policy.name, 0, pd.DataFrame({"layer": layers, "reason": reason}))
            continue
        for number, text in enumerate(progress(texts, f"reading with {policy.name}")):
            keep(reference, policy.name, number, _in_cache(model, policy, text, *part))
    table = pd.concat(frames, ignore_index=True).astype({"head": "Int64"})
    return table.assign(device=device.kind, dtype=str(model.dtype).removeprefix("torch."))
