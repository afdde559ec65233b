"""Writing a measuring job's row of the RUN table."""

import dataclasses
import math
from pathlib import Path

import pandas as pd

from inferometer.device import Device, describe_machine
from inferometer.jobs import Stopwatch
from inferometer.runs import RUN
from inferometer.tables import write_table


def write_run(
    path: Path,
    *,
    step: str,
    model: str,
    scheme: str | None,
    tokens: int,
    weights_bytes: int,
    dtype: str,
    stopwatch: Stopwatch,
    device: Device,
    forward_s: float = math.nan,
) -> None:
    """Write the RUN row of this job; the stopwatch must have seen the phases `load` and `compute`."""
    row = {
        "step": step,
        "model": model,
        "scheme": scheme,
        "tokens": tokens,
        "weights_bytes": weights_bytes,
        "peak_memory_bytes": device.peak_memory_bytes(),
        "dtype": dtype,
        **{f"{phase}_s": round(stopwatch.seconds[phase], 3) for phase in ("startup", "load", "compute")},
        "forward_s": forward_s,
        **dataclasses.asdict(describe_machine(device)),
    }
    write_table(RUN, pd.DataFrame([row]), path)
