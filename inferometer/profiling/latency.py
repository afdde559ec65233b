"""How long a model takes to read a prompt and to write after it, by scheme, dtype, length and batch."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import pandas as pd

from inferometer.capacity.shapes import Shape
from inferometer.capacity.storage import DTYPE_BYTES, kv_bytes_per_token, workspace_bytes_per_token
from inferometer.device import Device, why_no_memory
from inferometer.profiling.generation import phases, random_prompt
from inferometer.profiling.subjects import Subject
from inferometer.samples import refusal
from inferometer.timing import READY, Enough, Phase, Sample, interleaved_phases, warm_up

PHASES = ("prefill", "decode", "end_to_end")


@dataclass(frozen=True)
class Arm:
    """One cell to be timed; its columns are those of the LATENCY table."""

    scheme: str
    dtype: str
    layers: int
    prompt_tokens: int
    batch: int
    new_tokens: int


def needed_bytes(shape: Shape | str, arm: Arm) -> int:
    """What a cell needs beside the weights: its cache, twice while it grows, activations of the prompt and logits."""
    if isinstance(shape, str):
        return 0
    size, tokens = DTYPE_BYTES[arm.dtype], arm.prompt_tokens + arm.new_tokens
    cache = tokens * kv_bytes_per_token(shape, 8 * size) * arm.layers // shape.layers
    largest = 2 * cache // arm.layers  # keys and values of one layer are there twice while they are joined
    workspace = arm.prompt_tokens * workspace_bytes_per_token(shape, arm.dtype)
    return arm.batch * (cache + largest + workspace + shape.vocabulary * size)


def _work(subject: Subject, arm: Arm) -> Iterator[Phase]:
    with subject.running() as model:
        prompt = random_prompt(model, arm.batch, arm.prompt_tokens)
        yield READY
        yield from phases(model, prompt, arm.new_tokens, [])


def _why_not(subject: Subject, arm: Arm, device: Device, shape: Shape | str, *, first: bool) -> str | None:
    """Warm an arm up; the reason why it can't be timed, if there is one.

    Kernels are chosen and memory is fetched once for each subject, so that only its `first` arm is called until it is
    steady.
    """
    if subject.model is None:
        return subject.reason
    if (lacking := device.why_too_large(needed_bytes(shape, arm))) is not None:
        return lacking

    def call() -> None:
        for _ in _work(subject, arm):
            pass

    try:
        if first:
            warm_up(call, device)
        else:
            call()
    except (RuntimeError, MemoryError) as error:
        return why_no_memory(error)
    return None


def _row(sample: Sample[Arm]) -> dict[str, object]:
    return {**asdict(sample.arm), "phase": sample.phase, **sample.columns, "reason": None}


def end_to_end(samples: pd.DataFrame) -> pd.DataFrame:
    """The rows of whole passes that follow from those of their phases: sums of time, the larger of the loads."""
    cell = [*(field.name for field in fields(Arm)), "repetition"]
    summed = samples.assign(
        wall_ms=samples["wall_ms"] * samples["calls"], cpu_ms=samples["cpu_ms"] * samples["calls"], calls=1
    )
    kinds = {"wall_ms": "sum", "cpu_ms": "sum", "calls": "first", "foreign_load": "max", "contaminated": "max"}
    return summed.groupby(cell, as_index=False).agg(kinds).assign(phase="end_to_end", reason=None)


def measure(
    subjects: Sequence[Subject],
    prompt_tokens: Sequence[int],
    batches: Sequence[int],
    new_tokens: int,
    enough: Enough,
    device: Device,
    shape: Shape | str,
) -> pd.DataFrame:
    """The LATENCY table: all subjects at all lengths and batches take turns. What can't run is a row with its reason.

    By the model's `shape`, or the reason why it is not known, no cell is tried that would not fit into memory.
    """
    arms: dict[Arm, Subject] = {}
    refused: list[dict[str, object]] = []
    for subject in subjects:
        first = True
        for batch in batches:
            for tokens in prompt_tokens:
                arm = Arm(subject.scheme, subject.dtype, subject.layers, tokens, batch, new_tokens)
                reason = _why_not(subject, arm, device, shape, first=first)
                first = False
                if reason is None:
                    arms[arm] = subject
                else:
                    refused += [{**asdict(arm), "phase": phase, **refusal(reason)} for phase in PHASES]
    works = {arm: partial(_work, subject, arm) for arm, subject in arms.items()}
    samples = pd.DataFrame([_row(sample) for sample in interleaved_phases(works, enough, device)])
    timed = [samples, end_to_end(samples)] if arms else []
    table = pd.concat([*timed, pd.DataFrame(refused)], ignore_index=True)
    kernels = {(subject.scheme, subject.dtype): subject.kernels for subject in subjects}
    names: Any = [kernels[key] for key in zip(table["scheme"], table["dtype"], strict=True)]
    return table.assign(kernels=names, device=device.kind)
