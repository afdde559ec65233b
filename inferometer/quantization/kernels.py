"""The ways to multiply 8-bit integer codes, and which of them is the fastest here.

Torch has several, and which of them runs, is exact, or is fast depends on the processor. None is trusted: each
multiplies a few small matrices first, and what fails or differs from the product in 64-bit integers is left out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

Multiply = Callable[[Tensor], Tensor]

CUDA_ROWS = 32  # torch._int_mm on CUDA wants more than 16 rows, and both other sizes as multiples of 8
SIGN = 128  # the bit of int8 that says below zero, and how far below zero its codes begin
PROBE_SHAPES = ((1, 16, 8), (3, 7, 5), (17, 40, 24), (40, 64, 48))  # rows, inputs, outputs
TIMED_ROWS = (1, 256)  # a step of decoding, and a stretch of prompt
TIMED_REPEATS = 9
HOPELESS = 10.0  # times as long as the fastest: what is so far behind after two turns is not tried again
CLEARLY_BETTER = 0.7  # of how far the first kernel is behind; what is nearer may be noise


@dataclass(frozen=True)
class Kernel:
    """A way to multiply codes.

    `prepare` takes the codes of a weight, int8 [outputs, inputs], and its scales, float32 [outputs], and gives the
    function that turns codes of activations, int8 [rows, inputs], into their product with the scaled weight, float32
    [rows, outputs]. Sums of products are exact; only the scaling rounds. `cached_values` says how many float32 values
    stay in the caches that this kernel works from: more are best worked on in pieces; None where pieces gain nothing.
    """

    name: str
    prepare: Callable[[Tensor, Tensor], Multiply]
    cached_values: int | None = None


def _onednn(codes: Tensor, scales: Tensor, zero_point: int) -> Multiply:
    """The kernel behind torch's own quantized models on x86; it scales by output channel while values are at hand.

    It knows one scale for all activations, which is 1 here: rows have their own, to be applied afterwards.
    """
    packed = torch.ops.onednn.qlinear_prepack(codes, None)
    zero_points = torch.zeros(len(codes), dtype=torch.int64)
    run = torch.ops.onednn.qlinear_pointwise.default

    def multiply(rows: Tensor) -> Tensor:
        product: Tensor = run(
            rows, 1.0, zero_point, packed, scales, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
        )  # fmt: skip
        return product

    return multiply


def _prepare_onednn(codes: Tensor, scales: Tensor) -> Multiply:
    """Signed codes of activations, as they are: fast where the processor has AMX, and very slow elsewhere."""
    return _onednn(codes, scales, 0)


def _prepare_unsigned_onednn(codes: Tensor, scales: Tensor) -> Multiply:
    """Codes of activations moved up to 0 ... 255, as VNNI multiplies them with signed ones of weights."""
    multiply = _onednn(codes, scales, SIGN)
    return lambda rows: multiply(rows.view(torch.uint8) ^ SIGN)  # its own sign bit turned over: 128 more


def _prepare_int_mm(codes: Tensor, scales: Tensor) -> Multiply:
    """torch._int_mm, whose second factor should be a transposed view: a contiguous one is half as fast for one row."""
    if codes.shape[1] == 1:  # torch's product over a single input is wrong
        return _prepare_padded_int_mm(codes, scales)
    transposed = codes.contiguous().t()

    def multiply(rows: Tensor) -> Tensor:
        return torch._int_mm(rows, transposed).float().mul_(scales)

    return multiply


def _prepare_padded_int_mm(codes: Tensor, scales: Tensor) -> Multiply:
    """torch._int_mm for processors that want certain sizes: zeros are added, and what they gave is cut off."""
    outputs, inputs = codes.shape
    padded = torch.nn.functional.pad(codes, (0, -inputs % 8, 0, -outputs % 8))

    def multiply(rows: Tensor) -> Tensor:
        missing = max(CUDA_ROWS - len(rows), 0)
        rows_of_codes = torch.nn.functional.pad(rows, (0, -inputs % 8, 0, missing))
        product = torch._int_mm(rows_of_codes, padded.t())[: len(rows), :outputs]
        return product.float().mul_(scales)

    return multiply


def _prepare_float(codes: Tensor, scales: Tensor) -> Multiply:
    """Codes multiplied as floats: runs everywhere, slowly, and exactly as long as sums stay below 2^24."""

    def multiply(rows: Tensor) -> Tensor:
        return (rows.float() @ codes.float().t()).mul_(scales)

    return multiply


FALLBACK = Kernel("float32", _prepare_float)
KERNELS = (  # as a rule, the fastest first
    Kernel("onednn_qlinear", _prepare_onednn, cached_values=2**19),
    Kernel("onednn_qlinear_u8", _prepare_unsigned_onednn, cached_values=2**19),
    Kernel("int_mm", _prepare_int_mm),
    Kernel("int_mm_padded", _prepare_padded_int_mm),
)


def random_codes(rows: int, columns: int, device: torch.device) -> Tensor:
    """Seeded int8 codes [rows, columns] of the whole range."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-128, 128, (rows, columns), dtype=torch.int8, generator=generator).to(device)


def is_exact(kernel: Kernel, device: torch.device) -> bool:
    """Whether a kernel runs on a device, and gives the product of small matrices to the last digit."""
    for rows, inputs, outputs in PROBE_SHAPES:
        codes, weight = random_codes(rows, inputs, device), random_codes(outputs, inputs, device)
        try:
            product = kernel.prepare(weight, torch.ones(outputs, device=device))(codes)
        except (RuntimeError, NotImplementedError, AttributeError):  # how torch says that it has no such kernel here
            return False
        if not torch.equal(product.cpu().double(), (codes.cpu().long() @ weight.cpu().long().t()).double()):
            return False
    return True


@cache
def exact_kernels(device: torch.device) -> tuple[Kernel, ...]:
    """The kernels that run on a device and are exact; the fallback alone where there is none."""
    return tuple(kernel for kernel in KERNELS if is_exact(kernel, device)) or (FALLBACK,)


def _least_seconds(multiplies: Sequence[Multiply], rows: Tensor) -> list[float]:
    """The least of several times of each product; they take turns, since others may use the machine meanwhile."""
    samples: list[list[float]] = [[] for _ in multiplies]
    for turn in range(TIMED_REPEATS):
        for multiply, own in zip(multiplies, samples, strict=True):
            if turn > 1 and min(own) > HOPELESS * min(map(min, samples)):
                continue
            start = time.perf_counter()
            multiply(rows).sum().item()  # the number is there only when the work is done, on any device
            own.append(time.perf_counter() - start)
    return [min(own) for own in samples]


def _behind(seconds: Sequence[float]) -> list[float]:
    """How many times as long as the fastest each took."""
    return [own / min(seconds) for own in seconds]


@cache
def fastest_kernel(device: torch.device, outputs: int, inputs: int) -> Kernel:
    """The first exact kernel, or one that is clearly better for a weight of this shape, over one row and over many.

    The best is the one that is never far behind: its largest time over that of the fastest is the smallest. Some take a
    thousand times as long as others for some shapes and a single row. All of them give the same values bit by bit, so a
    choice that falls otherwise in another run changes none.
    """
    kernels = exact_kernels(device)
    if len(kernels) == 1:
        return kernels[0]
    weight, scales = random_codes(outputs, inputs, device), torch.ones(outputs, device=device)
    multiplies = [kernel.prepare(weight, scales) for kernel in kernels]
    one, many = (random_codes(rows, inputs, device) for rows in TIMED_ROWS)
    behind = dict(enumerate(_behind(_least_seconds(multiplies, one))))
    hopeful = [index for index, own in behind.items() if own < HOPELESS]
    over_many = _behind(_least_seconds([multiplies[index] for index in hopeful], many))
    behind |= {index: max(behind[index], own) for index, own in zip(hopeful, over_many, strict=True)}
    best = min(behind, key=lambda index: behind[index])
    return kernels[best] if behind[best] < CLEARLY_BETTER * behind[0] else kernels[0]
