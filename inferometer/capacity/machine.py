"""How fast this machine multiplies and moves memory, to be placed beside the GPUs of the catalogue."""

import os
import time
from collections.abc import Callable, Iterator

import pandas as pd
import torch
from torch import Tensor

from inferometer.capacity.tables import MACHINE
from inferometer.device import Device

DTYPES = (torch.float32, torch.bfloat16)
SMALLEST, LARGEST = 512, 8192  # rows of the matrices: doubled until a product takes long enough to be timed
LONG_ENOUGH_S = 0.02
COPIED_BYTES = 2**28  # far beyond any cache that is near
WARM_UP, REPETITIONS = 3, 15


def _seconds(run: Callable[[], object], device: Device) -> float:
    """Wall seconds of one run, all queued work included."""
    device.synchronize()
    start = time.perf_counter()
    run()
    device.synchronize()
    return time.perf_counter() - start


def _product(dtype: torch.dtype, device: Device) -> tuple[float, Callable[[], object]]:
    """Operations of a product of square matrices that takes long enough, and what computes it."""
    size = SMALLEST
    while True:
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(size, size, generator=generator).to(device.torch_device, dtype) for _ in range(2))
        out = torch.empty_like(left)

        def run(left: Tensor = left, right: Tensor = right, out: Tensor = out) -> object:
            return torch.matmul(left, right, out=out)

        run()
        if size >= LARGEST or _seconds(run, device) >= LONG_ENOUGH_S:
            return 2.0 * size**3, run
        size *= 2


def _copy(dtype: torch.dtype, device: Device) -> tuple[float, Callable[[], object]]:
    """Bytes that a copy reads and writes, and what copies."""
    source = torch.ones(COPIED_BYTES // dtype.itemsize, dtype=dtype, device=device.torch_device)
    target = torch.zeros_like(source)  # touched, so that no page is first made while it is timed
    return 2.0 * source.nbytes, lambda: target.copy_(source)


def _repetitions(device: Device) -> Iterator[tuple[str, str, int, float, float]]:
    jobs = [("multiply", dtype, _product) for dtype in DTYPES] + [("copy", torch.float32, _copy)]
    for what, dtype, prepare in jobs:
        work, run = prepare(dtype, device)
        for repetition in range(-WARM_UP, REPETITIONS):
            seconds = _seconds(run, device)
            if repetition >= 0:
                yield what, str(dtype).removeprefix("torch."), repetition, work, seconds


def measure(device: Device) -> pd.DataFrame:
    """The MACHINE table: raw seconds of products and copies on a device, and how busy others kept it before."""
    load_average, *_ = os.getloadavg()
    names = [column.name for column in MACHINE.columns][:5]
    rows = pd.DataFrame(_repetitions(device), columns=names)
    threads = torch.get_num_threads()
    return rows.assign(device=device.kind, device_name=device.name, threads=threads, load_average=load_average)
