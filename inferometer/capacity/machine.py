"""How fast this machine multiplies and moves memory, to be placed beside the GPUs of the catalogue."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import pandas as pd
import torch

from inferometer.device import Device
from inferometer.timing import interleaved

DTYPES = (torch.float32, torch.bfloat16)
SMALLEST, LARGEST = 512, 8192  # rows of the matrices: doubled until a product takes long enough
LONG_ENOUGH_MS = 10  # what it takes to start a product is nothing beside this
COPIED_BYTES = 2**28  # far beyond any cache that is near
REPETITIONS = 9


@dataclass(frozen=True)
class Arm:
    """One thing to be timed; `work` is the operations of a product, or the bytes that a copy reads and writes."""

    what: str
    dtype: str
    work: float


def _arm(what: str, dtype: torch.dtype, work: float) -> Arm:
    return Arm(what, str(dtype).removeprefix("torch."), work)


def _product(dtype: torch.dtype, device: Device) -> tuple[Arm, Callable[[], object]]:
    """A product of square matrices that takes long enough, warmed up by the samples that tell so."""
    size = SMALLEST
    while True:
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(size, size, generator=generator).to(device.torch_device, dtype) for _ in range(2))
        run = partial(torch.matmul, left, right, out=torch.empty_like(left))
        run()
        [sample] = interleaved({size: run}, 1, device)
        if size >= LARGEST or sample.wall_ms >= LONG_ENOUGH_MS:
            return _arm("multiply", dtype, 2.0 * size**3), run
        size *= 2


def _copy(dtype: torch.dtype, device: Device) -> tuple[Arm, Callable[[], object]]:
    """A copy, warmed up, so that no page is first made while it is timed."""
    source = torch.ones(COPIED_BYTES // dtype.itemsize, dtype=dtype, device=device.torch_device)
    run = partial(torch.zeros_like(source).copy_, source)
    run()
    return _arm("copy", dtype, 2.0 * source.nbytes), run


def measure(device: Device) -> pd.DataFrame:
    """The MACHINE table: raw samples of products and copies on a device, which take turns."""
    arms = dict([*(_product(dtype, device) for dtype in DTYPES), _copy(torch.float32, device)])
    rows = [{**asdict(sample.arm), **sample.columns} for sample in interleaved(arms, REPETITIONS, device)]
    return pd.DataFrame(rows).assign(device=device.kind, device_name=device.name, threads=torch.get_num_threads())
