"""One layer's attention by different kernels: how long they take, and how much memory they need beside.

All prefill the same random queries, keys and values, causally, for one request. Key and value heads are fewer than
query heads in most models. A kernel that can't share them gets them repeated within its call, as a model would have to
do it, so that the time and the memory of that are the kernel's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TypeVar
from warnings import WarningMessage, catch_warnings, simplefilter

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from inferometer.device import Device, out_of_memory, why_no_memory
from inferometer.heads import Heads
from inferometer.samples import refusal
from inferometer.timing import WHOLE, Enough, Phase, Work, interleaved_phases, until_long_enough

SEED = 0
PROBE_TOKENS = 64  # of the call that tells whether a kernel is there
COMPARED_ROWS = 64  # queries whose results are held against float64, spread over the prompt from first to last
SPARE_OUTPUTS = 8  # results in float32 that queries, keys and values take in all their copies, at most
FAILURES = (RuntimeError, MemoryError, ImportError, OSError, AssertionError)

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries [1, heads, tokens, dim], keys, values; as many results
Result = TypeVar("Result")


@dataclass(frozen=True)
class Kernel:
    """A way to compute attention; it runs while the context that `chosen` makes is entered.

    `pair_bytes` takes the query heads and the bytes of a number, and says how many bytes the kernel holds at once for
    each pair of a query and a key.
    """

    name: str
    attend: Attend
    pair_bytes: Callable[[int, int], int]
    chosen: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Cell:
    """Attention of one size, by whichever kernel."""

    heads: Heads
    tokens: int
    dtype: str

    @property
    def output_bytes(self) -> int:
        """Bytes of the result."""
        return self.heads.query_heads * self.tokens * self.heads.head_dim * self._torch_dtype.itemsize

    @property
    def score_bytes(self) -> int:
        """Bytes of one matrix of scores of all heads."""
        return self.heads.query_heads * self.tokens**2 * self._torch_dtype.itemsize

    @property
    def _torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def bytes_for(self, kernel: Kernel) -> int:
        """About the bytes that a kernel needs here, with its inputs."""
        size = self._torch_dtype.itemsize
        pairs = self.tokens**2 * kernel.pair_bytes(self.heads.query_heads, size)
        return pairs + SPARE_OUTPUTS * self.output_bytes * 4 // size

    def inputs(self, device: Device) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [1, query_heads, tokens, head_dim], keys and values [1, kv_heads, tokens, head_dim], all normal."""
        chance = torch.Generator().manual_seed(SEED)

        def normal(heads: int) -> Tensor:
            made = torch.randn(1, heads, self.tokens, self.heads.head_dim, generator=chance)
            return made.to(device.torch_device, self._torch_dtype)

        return normal(self.heads.query_heads), normal(self.heads.kv_heads), normal(self.heads.kv_heads)


@dataclass(frozen=True)
class Weighed:
    """What a call of a kernel tells beside its time; `extra_bytes` is None where the system can't tell."""

    extra_bytes: int | None
    difference: float


def _attend_at(positions: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Results [1, query_heads, rows, head_dim] of queries at such positions [rows] of a prompt.

    Query heads that share keys are rows of one product, so nothing is repeated. Scores of all heads are in memory
    twice: before the softmax and after.
    """
    _, heads, rows, dim = queries.shape
    _, kv_heads, tokens, _ = keys.shape
    grouped = (queries * dim**-0.5).reshape(1, kv_heads, -1, dim)
    scores = (grouped @ keys.transpose(-1, -2)).view(1, heads, rows, tokens)
    scores.masked_fill_(torch.arange(tokens, device=keys.device) > positions[:, None], float("-inf"))
    weights: Tensor = scores.softmax(-1).view(1, kv_heads, -1, tokens)
    results: Tensor = (weights @ values).view(1, heads, rows, dim)
    return results


def standard(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention as it is written down, each step through memory, the mask made in the call like that of PyTorch's."""
    return _attend_at(torch.arange(queries.shape[2], device=queries.device), queries, keys, values)


def _torch_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    shared = queries.shape[1] != keys.shape[1]
    result: Tensor = scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=shared)
    return result


def _flash_attn(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    from flash_attn import flash_attn_func  # type: ignore[import-not-found]  # only few machines have it

    by_token = (tensor.transpose(1, 2) for tensor in (queries, keys, values))
    result: Tensor = flash_attn_func(*by_token, causal=True)
    return result.transpose(1, 2)


def _of_torch(name: str, backend: SDPBackend, pair_bytes: Callable[[int, int], int]) -> Kernel:
    return Kernel(name, _torch_attention, pair_bytes, partial(sdpa_kernel, [backend]))


def _standard_pair_bytes(heads: int, size: int) -> int:
    return 2 * heads * size + 1  # scores before and after the softmax; the mask, which heads share


def _math_pair_bytes(heads: int, size: int) -> int:
    # The same in float32 or wider, with a mark on each score that says whether it is masked; the mask is there as bool
    # and as numbers.
    wide = max(size, 4)
    return heads * (2 * wide + 1) + wide + 1


def _no_pair_bytes(heads: int, size: int) -> int:
    return 0


EVERY = (
    Kernel("standard", standard, _standard_pair_bytes),
    _of_torch("math", SDPBackend.MATH, _math_pair_bytes),
    _of_torch("flash", SDPBackend.FLASH_ATTENTION, _no_pair_bytes),
    _of_torch("efficient", SDPBackend.EFFICIENT_ATTENTION, _no_pair_bytes),
    _of_torch("cudnn", SDPBackend.CUDNN_ATTENTION, _no_pair_bytes),
    Kernel("flash_attn", _flash_attn, _no_pair_bytes),
)


def _with_repeated_heads(kernel: Kernel) -> Kernel:
    """The same for shared keys and values, which are repeated in the call."""

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        group = queries.shape[1] // keys.shape[1]
        return kernel.attend(queries, keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1))

    return replace(kernel, attend=attend)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _complaint(error: BaseException, warned: Sequence[WarningMessage]) -> str:
    """Why a kernel does not run, in its maker's words: PyTorch warns of the reason before it raises an error.

    It warns about each of its kernels, also that all but the wanted one were turned off.
    """
    said = (str(warning.message).split(" (Triggered internally")[0].strip() for warning in warned)
    reasons = [line for line in said if not line.endswith("because:") and "runtime disabled" not in line]
    return " ".join(dict.fromkeys(reasons)) or _first_line(error)


def _or_reason(call: Callable[[], Result], refused: str) -> Result | str:
    """What the call gives, or a sentence that says why it failed, which begins with `refused`."""
    with catch_warnings(record=True) as warned:
        simplefilter("always")
        try:
            return call()
        except ModuleNotFoundError as error:
            return f"the package {error.name} is not installed"
        except FAILURES as error:
            if out_of_memory(error):
                return why_no_memory(error)
            return f"{refused} ({_complaint(error, warned)})"


def available(kernel: Kernel, heads: Heads, dtype: str, device: Device) -> Kernel | str:
    """The kernel as it can be had, with shared heads or with repeated ones, or the reason why it can't."""
    inputs = Cell(heads, PROBE_TOKENS, dtype).inputs(device)
    refused = f"this device has no such kernel for {dtype}"
    reason = ""
    with kernel.chosen():
        for form in (kernel, _with_repeated_heads(kernel)):
            found = _or_reason(partial(form.attend, *inputs), refused)
            if isinstance(found, Tensor):
                return form
            reason = found
    return reason


class Exact:
    """Some rows of the standard kernel's result in float64, to hold others against."""

    def __init__(self, queries: Tensor, keys: Tensor, values: Tensor) -> None:
        last = queries.shape[2] - 1
        self._rows = torch.linspace(0, last, COMPARED_ROWS, dtype=torch.float64).round().long().unique()
        self._rows = self._rows.to(queries.device)
        asking = queries[:, :, self._rows].chunk(keys.shape[1], 1)
        parts = zip(asking, keys.split(1, 1), values.split(1, 1), strict=True)  # not all heads' scores at once
        self._results = torch.cat([_attend_at(self._rows, *(part.double() for part in head)) for head in parts], 1)

    def difference(self, results: Tensor) -> float:
        """Largest absolute difference of a kernel's results [1, query_heads, tokens, head_dim] from them."""
        return float((results[:, :, self._rows].double() - self._results).abs().max())


def _weigh(call: Callable[[], Tensor], exact: Exact, device: Device) -> Weighed | str:
    """What a second call tells, or why it fails; the first makes ready whatever the kernel keeps."""
    failed = "fails at this length"
    first = _or_reason(call, failed)
    if isinstance(first, str):
        return first
    del first
    device.trim_memory()
    device.reset_peak_memory()
    before, peak_before = device.memory_bytes(), device.peak_memory_bytes()
    results = _or_reason(call, failed)
    if isinstance(results, str):
        return results
    device.synchronize()
    peak = device.peak_memory_bytes()
    extra = peak - before if peak > peak_before else None  # some systems never forget an earlier peak
    return Weighed(extra, exact.difference(results))


def _work(kernel: Kernel, call: Callable[[], object], failed: dict[str, str], device: Device) -> Work:
    """A sample of a kernel; where memory runs out, `failed` gets the reason."""

    def work() -> Iterator[Phase]:
        with kernel.chosen():
            try:
                yield from until_long_enough(call, device)()
            except FAILURES as error:
                failed[kernel.name] = why_no_memory(error)
                yield WHOLE, 1

    return work


def _fitting(kernels: Mapping[str, Kernel | str], cell: Cell, device: Device) -> dict[str, Kernel | str]:
    """The kernels that there is memory for, and for the others the reason why they can't be measured."""
    device.trim_memory()
    return {
        name: kernel if isinstance(kernel, str) else device.why_too_large(cell.bytes_for(kernel)) or kernel
        for name, kernel in kernels.items()
    }


def _measured(
    kernels: Mapping[str, Kernel | str], cell: Cell, enough: Enough, device: Device
) -> Iterator[tuple[str, dict[str, object]]]:
    """For each sample of each kernel its name and the columns that depend on it; for those not measured, why."""
    fitting = _fitting(kernels, cell, device)
    failed = {name: kernel for name, kernel in fitting.items() if isinstance(kernel, str)}
    weighed: dict[str, Weighed] = {}
    works: dict[str, Work] = {}
    if len(failed) < len(kernels):
        inputs = cell.inputs(device)
        exact = Exact(*inputs)
        for name, kernel in fitting.items():
            if isinstance(kernel, str):
                continue
            call = partial(kernel.attend, *inputs)
            with kernel.chosen():
                found = _weigh(call, exact, device)
            if isinstance(found, str):
                failed[name] = found
            else:
                weighed[name], works[name] = found, _work(kernel, call, failed, device)
    samples = list(interleaved_phases(works, enough, device))
    for name, reason in failed.items():
        yield name, {**refusal(reason), "extra_bytes": None, "difference": None}
    for sample in samples:
        if sample.arm not in failed:
            yield sample.arm, {**sample.columns, "reason": None, **asdict(weighed[sample.arm])}


def measure(heads: Heads, tokens: Sequence[int], dtypes: Sequence[str], enough: Enough, device: Device) -> pd.DataFrame:
    """The KERNELS table: raw samples of every kernel at every length of the prompt in every dtype (torch's names).

    Kernels take turns where length and dtype are the same. What can't be measured is a row that says why.
    """
    rows = []
    for dtype in dtypes:
        kernels = {kernel.name: available(kernel, heads, dtype, device) for kernel in EVERY}
        for count in tokens:
            cell = Cell(heads, count, dtype)
            shared = {"dtype": dtype, "tokens": count, "device": device.kind}
            shared |= {"output_bytes": cell.output_bytes, "score_bytes": cell.score_bytes}
            rows += [{"kernel": name, **shared, **found} for name, found in _measured(kernels, cell, enough, device)]
    return pd.DataFrame(rows)
