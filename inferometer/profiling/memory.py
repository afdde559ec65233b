"""How much memory a model holds as it writes: its cache, its process, and the most that it held on the way."""

from collections.abc import Sequence

import pandas as pd

from inferometer.device import Device, why_no_memory
from inferometer.held import held_bytes
from inferometer.profiling.generation import random_prompt
from inferometer.profiling.subjects import Subject
from inferometer.writing import read, write


def _row(subject: Subject, new_tokens: int, device: Device) -> dict[str, object]:
    nothing = dict.fromkeys(("cache_bytes", "memory_bytes", "peak_bytes", "reason"))
    own = {"scheme": subject.scheme, "dtype": subject.dtype, "layers": subject.layers}
    return {**own, "new_tokens": new_tokens, **nothing, "device": device.kind}


def _measured(
    subject: Subject, prompt_tokens: int, new_tokens: Sequence[int], device: Device, rows: list[dict[str, object]]
) -> None:
    """Fill in what is measured, row by row, so that what was there before memory ran out is kept."""
    with subject.running() as model:
        token, cache = read(model, random_prompt(model, 1, prompt_tokens))
        written = 1
        for row, wanted in zip(rows, new_tokens, strict=True):
            device.trim_memory()
            device.reset_peak_memory()
            if wanted > written:
                token = write(model, token, cache, wanted - written)[:, -1:].clone()
                written = wanted
            device.synchronize()
            peak = device.peak_memory_bytes()
            device.trim_memory()
            row |= {"cache_bytes": held_bytes(cache), "memory_bytes": device.own_memory_bytes(), "peak_bytes": peak}


def measure(subjects: Sequence[Subject], prompt_tokens: int, new_tokens: Sequence[int], device: Device) -> pd.DataFrame:
    """The MEMORY table: each subject writes once after a prompt and is weighed after so many tokens on the way.

    The process is trimmed before each weighing, since freed memory that the allocator keeps would pass for the model's.
    A first, short run makes whatever is made once. Rows after memory has run out say so.
    """
    table: list[dict[str, object]] = []
    lengths = sorted(new_tokens)
    for subject in subjects:
        rows = [_row(subject, count, device) | {"context_tokens": prompt_tokens + count - 1} for count in lengths]
        reason = subject.reason
        if subject.model is not None:
            try:
                with subject.running() as model:
                    write(model, *read(model, random_prompt(model, 1, prompt_tokens)), 1)
                _measured(subject, prompt_tokens, lengths, device, rows)
            except (RuntimeError, MemoryError) as error:
                reason = why_no_memory(error)
        table += [row | {"reason": reason if row["cache_bytes"] is None else None} for row in rows]
    return pd.DataFrame(table)
