"""A row about each measuring job: on what it ran, how long each part took, how much memory it needed.

These rows differ from run to run, so they stand apart from the byte-stable results.
"""

import dataclasses
from pathlib import Path

import pandas as pd

from inferometer.device import Device, describe_machine
from inferometer.jobs import Stopwatch
from inferometer.tables import Column, Table, write_table

RUN = Table(
    path="<model>/<chapter>/[<scheme>/]run.parquet",
    meaning="One measuring job: its machine, time and memory.",
    columns=(
        Column("step", "string", "rule that measured"),
        Column("model", "string", "model name in the configuration"),
        Column("scheme", "string", "scheme name, where the step has one", nullable=True),
        Column("tokens", "int64", "tokens that went through the model"),
        Column("startup_s", "float64", "seconds from process start to the first line of the script's work"),
        Column("load_s", "float64", "seconds to read tokenizer, text and weights"),
        Column("compute_s", "float64", "seconds of model arithmetic and statistics"),
        Column("weights_bytes", "int64", "exact bytes of the float model's parameters and buffers"),
        Column(
            "peak_memory_bytes",
            "int64",
            "peak memory while computing: of the process on a CPU, of torch on CUDA",
        ),
        Column("device", "string", "cpu or cuda"),
        Column("device_name", "string", "what the maker calls the device"),
        Column("dtype", "string", "dtype of the float parts of the model"),
        Column("cores", "int64", "processor cores that the process may use"),
        Column("torch_threads", "int64", "threads that torch computes with"),
        Column("memory_gib", "float64", "main memory of the host in GiB"),
        Column("system", "string", "operating system and processor architecture"),
        Column("python", "string", "version of Python"),
        Column("torch", "string", "version of torch"),
        Column("transformers", "string", "version of transformers"),
    ),
    key=("step", "model", "scheme"),
)


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
        **dataclasses.asdict(describe_machine(device)),
    }
    write_table(RUN, pd.DataFrame([row]), path)
