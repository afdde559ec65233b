"""The one place that knows on which device a model runs.

Everything that differs between CPU and CUDA lies behind `Device`; no other module asks which it is.
"""

import ctypes
import gc
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from inferometer.errors import InferometerError
from inferometer.lease import leased
from inferometer.memory import available_bytes
from inferometer.runs import Machine
from inferometer.units import GIB

CLEAR_PEAK = "5"
RAPL = Path("/sys/class/powercap")
CPUINFO = Path("/proc/cpuinfo")
FEATURES = (  # instruction sets that torch's products use or could use, as Linux names them: of x86, and of Arm
    *("avx2", "fma", "avx512f", "avx512bw", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "svebf16", "sme"),
)

Mark = Any  # a moment in the device's work: seconds of a clock on a CPU, an event on CUDA


@dataclass(frozen=True)
class Device:
    """A place to run: `kind` is `cpu` or `cuda`, `name` what the maker calls it."""

    kind: str
    name: str

    @property
    def torch_device(self) -> torch.device:
        """The device as torch wants it."""
        return torch.device(self.kind)

    @property
    def features(self) -> str:
        """What decides which kernels run: a processor's instruction sets, or a GPU's compute capability."""
        if self.kind == "cuda":
            major, minor = torch.cuda.get_device_capability()
            return f"compute capability {major}.{minor}"
        return cpu_features()

    def synchronize(self) -> None:
        """Wait until all work queued on the device is done, so that a clock read afterwards is honest."""
        if self.kind == "cuda":
            torch.cuda.synchronize()

    def mark(self) -> Mark:
        """This moment in the device's work, to be read after `synchronize` by `milliseconds_between`."""
        if self.kind == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            return event
        return time.perf_counter()

    def milliseconds_between(self, begin: Mark, end: Mark) -> float:
        """Time between two marks, once the device has passed both."""
        return float(begin.elapsed_time(end)) if self.kind == "cuda" else 1000.0 * (end - begin)

    def trim_memory(self) -> None:
        """Give back what no tensor needs any more, so that the memory in use is that of tensors and code."""
        gc.collect()
        if self.kind == "cuda":
            torch.cuda.empty_cache()
        elif sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; other systems have none
            if trim is not None:
                trim(0)

    def available_bytes(self) -> int:
        """Memory that could still be had."""
        return torch.cuda.mem_get_info()[0] if self.kind == "cuda" else available_bytes()

    def why_too_large(self, needed_bytes: int) -> str | None:
        """What to say where so much memory can't be had; None where it can."""
        available = self.available_bytes()
        if needed_bytes <= available:
            return None
        sizes = f"about {needed_bytes / GIB:.3g} GiB are needed and {available / GIB:.3g} GiB available"
        return f"not enough memory: {sizes}"

    def own_memory_bytes(self) -> int:
        """Memory in use without what is mapped from files: allocated by torch on CUDA, anonymous pages on a CPU."""
        if self.kind == "cuda":
            return torch.cuda.memory_allocated()
        return _status_bytes("RssAnon") or self.memory_bytes()

    def reset_peak_memory(self) -> None:
        """Start a new measurement of peak memory."""
        gc.collect()
        if self.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif (counter := Path("/proc/self/clear_refs")).exists():
            counter.write_text(CLEAR_PEAK)

    def memory_bytes(self) -> int:
        """Memory in use now: allocated by torch on CUDA, resident in the process on a CPU."""
        if self.kind == "cuda":
            return torch.cuda.memory_allocated()
        return psutil.Process().memory_info().rss

    def peak_memory_bytes(self) -> int:
        """Most memory in use since the last reset; since the process began where the system has no such counter."""
        if self.kind == "cuda":
            return torch.cuda.max_memory_allocated()
        if (most := _status_bytes("VmHWM")) is not None:
            return most
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(field: str) -> int | None:
    """A figure that Linux keeps of this process, or None on other systems."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(fields[field].split()[0]) * 1024


def _cpuinfo(fields: tuple[str, ...], cpuinfo: Path) -> str | None:
    """What Linux says of the first processor under one of these names, or None where it says nothing."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in fields:
                return value.strip()
    return None


def _cpu_name() -> str:
    return _cpuinfo(("model name",), CPUINFO) or platform.processor() or platform.machine()


def cpu_features(cpuinfo: Path = CPUINFO) -> str:
    """The processor's instruction sets out of `FEATURES`, with spaces between.

    Where the system lists none, the one that torch takes it to have, or nothing.
    """
    found = _cpuinfo(("flags", "Features"), cpuinfo)
    if found is None:
        best: str = torch.backends.cpu.get_cpu_capability().lower()
        return "" if best == "default" else best
    return " ".join(name for name in FEATURES if name in found.split())


def available_cores() -> int:
    """Processor cores that this process may use: as the system binds it, hyperthreads not counted twice."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


@contextmanager
def _products(cpu: str, cuda: str) -> Iterator[None]:
    settings: tuple[tuple[Any, str], ...] = (
        (torch.backends.mkldnn.matmul, cpu),  # type: ignore[attr-defined]  # torch's types don't know it
        (torch.backends.cuda.matmul, cuda),
    )
    before = [backend.fp32_precision for backend, _ in settings]
    try:
        for backend, precision in settings:
            backend.fp32_precision = precision
        yield
    finally:
        for (backend, _), precision in zip(settings, before, strict=True):
            backend.fp32_precision = precision


def quick_products() -> AbstractContextManager[None]:
    """Run the block with float32 products whose factors may be cut to fewer bits where the hardware gains by it.

    Factors become bfloat16 on a CPU and TF32 on CUDA, sums stay in float32. For statistics of calibration text, and
    for whole numbers up to 256, which both formats hold exactly; never for other values that are measured.
    """
    return _products("bf16", "tf32")


def exact_products() -> AbstractContextManager[None]:
    """Run the block with float32 products of all digits, as they are where nothing else is said."""
    return _products("ieee", "ieee")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, on either kind of device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def why_no_memory(error: BaseException) -> str:
    """What to say where memory ran out; an error of any other kind is raised again."""
    if not out_of_memory(error):
        raise error
    return f"not enough memory ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


def _rapl_joules(package: Path) -> Callable[[], float]:
    """Joules of a processor package since `_rapl_joules` was called; its counter starts anew now and then."""
    counter, span = package / "energy_uj", int((package / "max_energy_range_uj").read_text())
    last, joules = int(counter.read_text()), 0.0

    def so_far() -> float:
        nonlocal last, joules
        now = int(counter.read_text())
        joules += (now - last) % span / 1e6
        last = now
        return joules

    return so_far


def energy_counter(device: Device, powercap: Path = RAPL) -> Callable[[], float] | str:
    """A function that gives the joules that a device has used since some moment, or the reason why there is none.

    On a CPU the packages' counters (RAPL) that Linux shows under `powercap`, on CUDA the driver's (NVML). They count
    for everyone who uses the device.
    """
    if device.kind == "cuda":
        try:
            import pynvml  # type: ignore[import-not-found]  # only machines with CUDA need it
        except ImportError:
            return "the package nvidia-ml-py, which reads the GPU's energy counter, is not installed"
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(torch.cuda.current_device()))
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except pynvml.NVMLError as error:
            return f"the driver offers no energy counter for this GPU ({error})"
        return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    packages = sorted(path.parent for path in powercap.glob("intel-rapl:*/name") if "package" in path.read_text())
    if not packages:
        return (
            f"this system offers no energy counters ({powercap}/intel-rapl:* is not there, as on most rented machines)"
        )
    try:
        counters = [_rapl_joules(package) for package in packages]
    except OSError as error:
        return f"this system lets only its administrator read energy counters ({error})"
    return lambda: sum(counter() for counter in counters)


def _uuid(place: int) -> str:
    """The name of a GPU that is the same for every process, whichever GPUs it sees."""
    return f"GPU-{torch.cuda.get_device_properties(place).uuid}"


def choose_device(wanted: str) -> Device:
    """The device for `auto`, `cpu` or `cuda`; `auto` is CUDA where there is one.

    Of several GPUs (those that CUDA_VISIBLE_DEVICES leaves) the process takes one that no other job holds.
    Torch is given all available cores. Workflow systems set OMP_NUM_THREADS to the cores that they book for a job,
    which is one under `--cores 1`; but measuring jobs have the machine to themselves, since each holds the `gpu`.
    Raises InferometerError when `cuda` is asked for and absent.
    """
    torch.set_num_threads(available_cores())
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InferometerError(
            "configuration key `device` is cuda, but torch finds no CUDA device here; set it to auto or cpu."
        )
    if wanted == "cpu" or not available:
        return Device("cpu", _cpu_name())
    torch.cuda.set_device(leased(tuple(_uuid(place) for place in range(torch.cuda.device_count()))))
    return Device("cuda", torch.cuda.get_device_name())


def describe_machine(device: Device) -> Machine:
    """The machine and library versions of this process; `memory_gib` is the host's main memory."""
    return Machine(
        device=device.kind,
        device_name=device.name,
        features=device.features,
        cores=available_cores(),
        torch_threads=torch.get_num_threads(),
        memory_gib=round(psutil.virtual_memory().total / GIB, 1),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=version("transformers"),  # to import it costs seconds
    )
