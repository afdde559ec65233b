"""How long a token takes to write after long prompts, and how many bytes their caches take."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.device import Device, why_no_memory
from inferometer.kv_cache.policies import Policy
from inferometer.kv_cache.session import Context, Session, features_of, read_context
from inferometer.samples import refusal
from inferometer.timing import READY, WHOLE, Enough, Phase, interleaved_phases

Rows = list[dict[str, Any]]

NEW_TOKENS = 2  # written while the peak is watched, and by each sample


@dataclass
class _Arm:
    """A session that has read a prompt, and the logits [vocabulary] behind its newest token."""

    session: Session
    before: Tensor

    def write(self, model: PreTrainedModel, count: int) -> None:
        """Write the likeliest tokens."""
        for _ in range(count):
            token = self.before.argmax()[None, None]
            self.before = self.session.read(model, token, self.before)[-1]


def _filled(model: PreTrainedModel, policy: Policy, context: Context) -> _Arm:
    session = Session(model, policy)
    session.fill(context)
    return _Arm(session, context.logits)


def _weigh(model: PreTrainedModel, policy: Policy, context: Context, device: Device) -> tuple[_Arm, dict[str, Any]]:
    """A filled cache with its columns of CACHE_MEMORY: exact bytes after the prompt, and the peak on the way.

    The context's own float states are held by all alike, so that only what is above them counts.
    """
    device.trim_memory()
    before = device.memory_bytes()
    device.reset_peak_memory()
    arm = _filled(model, policy, context)
    sizes = arm.session.sizes
    arm.write(model, NEW_TOKENS)
    device.synchronize()
    peak = device.peak_memory_bytes() - before
    place = {"experiment": "prompt", "index": context.tokens.shape[1]}
    return arm, {**place, **sizes, "peak_bytes": peak, "reason": None}


def _work(model: PreTrainedModel, filled: _Arm) -> Iterator[Phase]:
    """Write after the prompt, each time from where it ends."""
    arm = _Arm(filled.session.copy(), filled.before)
    yield READY
    arm.write(model, NEW_TOKENS)
    yield WHOLE, NEW_TOKENS


def unweighed(tokens: int, reason: str) -> dict[str, Any]:
    """The columns of CACHE_MEMORY for a prompt whose cache could not be weighed."""
    nothing = dict.fromkeys(("cache_bytes", "predicted_bytes", "effective_bits", "peak_bytes"))
    return {"experiment": "prompt", "index": tokens, "tokens": tokens, **nothing, "reason": reason}


def measure(
    model: PreTrainedModel, policies: Sequence[Policy], prompt: Tensor, enough: Enough, device: Device
) -> Mapping[str, tuple[Rows, Rows]]:
    """For each policy the columns of CACHE_LATENCY and CACHE_MEMORY that depend on what a prompt [1, tokens] shows.

    The prompt is read once in float and stored by every policy. Then all write after it in turns.
    """
    context = read_context(model, prompt, features_of(policies))
    tokens = prompt.shape[1]
    arms: dict[str, _Arm] = {}
    latency: dict[str, Rows] = {policy.name: [] for policy in policies}
    memory: dict[str, Rows] = {policy.name: [] for policy in policies}
    for policy in policies:
        try:
            arms[policy.name], row = _weigh(model, policy, context, device)
        except (RuntimeError, MemoryError) as error:
            reason = why_no_memory(error)
            latency[policy.name].append(refusal(reason))
            row = unweighed(tokens, reason)
        memory[policy.name].append(row)
    works = {name: partial(_work, model, arm) for name, arm in arms.items()}
    with torch.no_grad():
        for sample in interleaved_phases(works, enough, device):
            latency[sample.arm].append({**sample.columns, "reason": None})
    return {policy.name: (latency[policy.name], memory[policy.name]) for policy in policies}
