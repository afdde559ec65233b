"""What a model writes after a few prompts, and how fast: one run each, as a user would have it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from inferometer.device import Device, energy_counter, why_no_memory
from inferometer.profiling.generation import phases
from inferometer.profiling.tables import BASELINE
from inferometer.timing import Sample, phases_of
from inferometer.writing import decoded, encoded, read, write

ATTEMPTS = 3  # until one is not contaminated
WARM_UP_TOKENS = 2
NOTHING = dict.fromkeys(column.name for column in BASELINE.columns if column.nullable)


@dataclass(frozen=True)
class _Run:
    """Tokens [batch, new_tokens] that were written, how long the first and the others took, and the energy."""

    tokens: Tensor
    first: Sample[str]
    others: Sample[str]
    joules: float | None

    @property
    def latency_ms(self) -> float:
        return self.first.wall_ms + self.others.wall_ms * self.others.calls


def _run(
    model: PreTrainedModel, prompt: Tensor, new_tokens: int, device: Device, joules: Callable[[], float] | str
) -> _Run:
    written: list[Tensor] = []
    before = None if isinstance(joules, str) else joules()
    first, others = phases_of("baseline", partial(phases, model, prompt, new_tokens, written), 0, device)
    used = None if before is None or isinstance(joules, str) else joules() - before
    return _Run(torch.cat(written, dim=1), first, others, used)


def _row(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Tensor,
    new_tokens: int,
    device: Device,
    joules: Callable[[], float] | str,
) -> dict[str, object]:
    device.trim_memory()
    memory = device.own_memory_bytes()
    device.reset_peak_memory()
    for _ in range(ATTEMPTS):
        run = _run(model, prompt, new_tokens, device, joules)
        if not run.first.contaminated:
            break
    return {
        "prompt_tokens": prompt.shape[1],
        "latency_ms": run.latency_ms,
        "first_token_ms": run.first.wall_ms,
        "tokens_per_s": 1000 * run.tokens.numel() / run.latency_ms,
        "memory_bytes": memory,
        "peak_bytes": device.peak_memory_bytes(),
        "foreign_load": run.first.foreign_load,
        "contaminated": run.first.contaminated,
        "joules": run.joules,
        "text": decoded(tokenizer, run.tokens[0]),
        "reason": None,
    }


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Mapping[str, str],
    batches: Sequence[int],
    new_tokens: int,
    device: Device,
) -> pd.DataFrame:
    """The BASELINE table: every prompt alone and in batches of copies. What does not fit is a row with its reason."""
    joules = energy_counter(device)
    rows: list[dict[str, object]] = []
    for name, text in prompts.items():
        for batch in batches:
            prompt = encoded(tokenizer, text).to(model.device).repeat(batch, 1)
            try:
                write(model, *read(model, prompt), WARM_UP_TOKENS)  # memory and kernels are ready afterwards
                row = _row(model, tokenizer, prompt, new_tokens, device, joules)
            except (RuntimeError, MemoryError) as error:
                row = {**NOTHING, "contaminated": False, "reason": why_no_memory(error)}
            rows.append({"prompt": name, "batch": batch, "new_tokens": new_tokens, **row})
    return pd.DataFrame(rows).assign(
        no_energy=joules if isinstance(joules, str) else None,
        dtype=str(model.dtype).removeprefix("torch."),
        device=device.kind,
    )
