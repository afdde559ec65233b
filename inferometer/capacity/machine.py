"""How fast this machine multiplies and moves memory: the roofs that measured models are held against."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from math import isqrt

import pandas as pd
import torch

from inferometer.device import Device
from inferometer.quantization.kernels import FALLBACK, fastest_kernel, random_codes
from inferometer.samples import refusal
from inferometer.timing import interleaved, warm_up

DTYPES = (torch.float32, torch.bfloat16)
SMALLEST, LARGEST = 1024, 8192  # rows of the matrices: doubled until a product takes long enough
LONG_ENOUGH_MS = 10  # what it takes to start a product is nothing beside this
MOVED_BYTES = 2**28  # far beyond any cache that is near
REPETITIONS = 7
TRIALS = 2  # of a size: one sample may be slow for other reasons
NO_KERNEL = "torch has no exact product of 8-bit integers on this device; their codes are multiplied as floats"


@dataclass(frozen=True)
class Arm:
    """One thing to be timed; `work` is the operations of a product, or the bytes that are read, or read and written.

    `kernel` names the kernel of an integer product.
    """

    what: str
    dtype: str
    work: float
    kernel: str | None = None


Timed = tuple[Arm, Callable[[], object]]


def _float_product(dtype: torch.dtype, device: Device, size: int) -> Timed:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(device.torch_device, dtype) for _ in range(2))
    arm = Arm("multiply", str(dtype).removeprefix("torch."), 2.0 * size**3)
    return arm, partial(torch.matmul, left, right, out=torch.empty_like(left))


def _integer_product(device: Device, size: int) -> Timed:
    """A product of codes by the kernel that layers with such a weight would choose, scaling included."""
    kernel = fastest_kernel(device.torch_device, size, size)
    codes = random_codes(size, size, device.torch_device)
    multiply = kernel.prepare(codes, torch.ones(size, device=device.torch_device))
    return Arm("multiply", "int8", 2.0 * size**3, kernel.name), partial(multiply, codes)


def _fastest(product: Callable[[int], Timed], device: Device) -> Timed:
    """Of products of ever larger matrices, up to one that takes long enough, that of the highest rate, warmed up.

    Small products wait for their start, and large ones for memory where a kernel makes bad use of caches: a roof is
    what is reached between the two.
    """
    size, best_rate = SMALLEST, 0.0
    while True:
        arm, run = product(size)
        run()
        wall_ms = min(sample.wall_ms for sample in interleaved({arm: run}, TRIALS, device))
        if (rate := arm.work / wall_ms) > best_rate:
            best, best_rate = (arm, run), rate
        if size >= LARGEST or wall_ms >= LONG_ENOUGH_MS:
            return best
        size *= 2


def _read(device: Device) -> Timed:
    """A matrix times a vector, which is what writing one token is made of."""
    size = isqrt(MOVED_BYTES // torch.float32.itemsize)
    matrix = torch.ones(size, size, device=device.torch_device)
    vector = torch.ones(size, device=device.torch_device)
    return Arm("read", "float32", float(matrix.nbytes)), partial(torch.mv, matrix, vector, out=torch.empty_like(vector))


def _copy(device: Device) -> Timed:
    source = torch.ones(MOVED_BYTES // torch.float32.itemsize, device=device.torch_device)
    return Arm("copy", "float32", 2.0 * source.nbytes), partial(torch.empty_like(source).copy_, source)


def measure(device: Device) -> pd.DataFrame:
    """The MACHINE_SAMPLES table: raw samples of products, of reading and of copies on a device, which take turns."""
    multiplies_integers = fastest_kernel(device.torch_device, SMALLEST, SMALLEST) is not FALLBACK
    products = [_fastest(partial(_float_product, dtype, device), device) for dtype in DTYPES]
    if multiplies_integers:
        products.append(_fastest(partial(_integer_product, device), device))
    moves = [_read(device), _copy(device)]
    for _, run in moves:
        warm_up(run, device)
    samples = interleaved(dict([*products, *moves]), REPETITIONS, device)
    rows = [{**asdict(sample.arm), **sample.columns, "reason": None} for sample in samples]
    if not multiplies_integers:
        rows.append({"what": "multiply", "dtype": "int8", "work": None, "kernel": None, **refusal(NO_KERNEL)})
    return pd.DataFrame(rows).assign(device=device.kind, device_name=device.name, torch_threads=torch.get_num_threads())
