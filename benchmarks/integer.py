"""Speed of layers that compute on integer codes, beside that of float layers and of the bare integer product.

Sizes are those of a model of a billion parameters, for a prompt and for one step of decoding; then a whole model is run
with its decoder layers replaced.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.device import Device, choose_device
from inferometer.manifest import Manifest
from inferometer.models import load_model, quantizable_layers, weight_matrix
from inferometer.quantization.grids import IntegerGrid
from inferometer.quantization.integer import ActivationCoder, integer_layer
from inferometer.quantization.kernels import fastest_kernel, random_codes
from inferometer.timing import interleaved

SHAPES = ((2048, 2048), (2048, 8192), (8192, 2048))  # inputs, outputs
PROMPT_TOKENS = 512
PEAK_SIZES = (1024, 2048, 4096)  # of the square products that measure the peak
ROUNDS = 15
MODEL_ROUNDS = 5
WANTED = {"prefill": (4.5, 1.5), "decode": (1.6, 1.8)}  # over fp32, over bf16
WEIGHTS, INT4_WEIGHTS, TOKENS = (
    IntegerGrid("per_channel"),
    IntegerGrid("per_group", 128, bits=4),
    IntegerGrid("per_token"),
)

Arms = Mapping[str, Callable[[], object]]


def seconds_by_round(arms: Arms, device: Device, rounds: int) -> dict[str, list[float]]:
    """Seconds of one call of each arm in every round; the arms take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for sample in interleaved(arms, rounds, device):
        seconds[sample.arm].append(sample.wall_ms / 1000)
    return seconds


def _seconds(arms: Arms, device: Device, rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of one call of each arm, after one that warms it up."""
    for work in arms.values():
        work()
    return {name: median(own) for name, own in seconds_by_round(arms, device, rounds).items()}


def _fresh(values: Tensor) -> Tensor:
    """The same values as a tensor that no memory of earlier codes knows."""
    return values.view(values.shape)


def _peak(device: Device) -> float:
    """Operations per second of the best integer product on large square matrices."""
    rates = []
    for size in PEAK_SIZES:
        codes = random_codes(size, size, device.torch_device)
        kernel = fastest_kernel(device.torch_device, size, size)
        multiply = kernel.prepare(codes, torch.ones(size, device=device.torch_device))
        seconds = _seconds({"product": partial(multiply, codes)}, device)["product"]
        rates.append(2 * size**3 / seconds)
    return max(rates)


def _bench_shape(inputs: int, outputs: int, phase: str, device: Device, peak: float) -> None:
    rows, place = (PROMPT_TOKENS if phase == "prefill" else 1), device.torch_device
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=False, device=place).requires_grad_(False)
    half = nn.Linear(inputs, outputs, bias=False, device=place, dtype=torch.bfloat16).requires_grad_(False)
    half.weight.copy_(layer.weight)
    values = torch.randn(rows, inputs, device=place)
    halves = values.bfloat16()
    integer = integer_layer(WEIGHTS.quantized(layer.weight), None, ActivationCoder(TOKENS), torch.float32)
    packed, packed_half = (
        integer_layer(INT4_WEIGHTS.quantized(layer.weight), None, None, dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    kernel = fastest_kernel(place, outputs, inputs)
    coder = ActivationCoder(TOKENS)
    codes = coder(values, kernel.cached_values)
    multiply = kernel.prepare(WEIGHTS.quantized(layer.weight).codes.to(torch.int8), torch.ones(outputs, device=place))
    product = multiply(codes.codes)
    arms: dict[str, Callable[[], object]] = {
        "fp32 linear": lambda: layer(values),
        "bf16 linear": lambda: half(halves),
        "integer product alone": lambda: multiply(codes.codes),
        "  codes of fp32 rows": lambda: coder(_fresh(values), kernel.cached_values),
        "  codes of bf16 rows": lambda: coder(_fresh(halves), kernel.cached_values),
        "  scaling of rows": lambda: product.mul_(codes.scales),
        "integer layer, fp32": lambda: integer(_fresh(values)),
        "integer layer, bf16": lambda: integer(_fresh(halves)),
    }
    if phase == "decode":
        arms["packed INT4 layer, fp32"] = lambda: packed(values)
        arms["packed INT4 layer, bf16"] = lambda: packed_half(halves)
    seconds = _seconds(arms, device)
    print(f"\n{phase}, {rows} x {inputs} by {inputs} x {outputs}; kernel {integer.kernel}; INT4: {packed_half.kernel}")
    print(f"{'':26}{'ms':>9}{'x fp32':>8}{'x bf16':>8}{'of product':>12}{'of peak':>9}")
    for arm, own in seconds.items():
        part = arm.startswith(" ")
        ratios = [seconds[base] / own for base in ("fp32 linear", "bf16 linear", "integer product alone")]
        shares = f"{ratios[0]:8.2f}{ratios[1]:8.2f}{ratios[2]:12.2f}{2 * rows * inputs * outputs / own / peak:9.2f}"
        print(f"{arm:26}{own * 1e3:9.3f}{'' if part else shares}")
    over_fp32 = seconds["fp32 linear"] / seconds["integer layer, fp32"]
    over_bf16 = seconds["bf16 linear"] / seconds["integer layer, bf16"]
    wanted = WANTED[phase]
    print(f"integer layer: {over_fp32:.2f}x fp32 (wanted: {wanted[0]}), {over_bf16:.2f}x bf16 (wanted: {wanted[1]})")


@torch.inference_mode()
def bench_integer_layers() -> None:
    """Print the times of float layers, integer layers and their parts."""
    device = choose_device("auto")
    peak = _peak(device)
    print(f"\nInteger layers on {device.name}, medians of {ROUNDS} interleaved rounds")
    print(f"peak: {peak / 1e12:.2f} TOPS, the best integer product of square matrices")
    for phase in WANTED:
        for inputs, outputs in SHAPES:
            _bench_shape(inputs, outputs, phase, device, peak)


def compute_on_integers(model: PreTrainedModel) -> None:
    """Replace the decoder's linear layers by integer ones: INT8 weights per channel, activations per token."""
    coder = ActivationCoder(TOKENS)
    for name, layer in quantizable_layers(model).items():
        weight = WEIGHTS.quantized(weight_matrix(layer))
        model.set_submodule(name, integer_layer(weight, layer.bias, coder, layer.weight.dtype))


@torch.inference_mode()
def bench_integer_model(folder: Path) -> None:
    """Print the throughput of a whole model, plain and with integer layers; `folder` holds manifest and checkpoint."""
    manifest, device = Manifest.read(folder / "model.json"), choose_device("auto")
    tokens = torch.randint(manifest.vocabulary, (1, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(device.torch_device)
    arms: dict[str, Callable[[], object]] = {}
    for dtype in ("float32", "bfloat16"):
        for kind in ("plain", "integer"):
            model = load_model(manifest, folder / "checkpoint", device, dtype)
            if kind == "integer":
                compute_on_integers(model)
            arms[f"{kind} {dtype}"] = lambda model=model: model(tokens)  # type: ignore[misc]
    seconds = _seconds(arms, device, rounds=MODEL_ROUNDS)
    print(f"\n{manifest.name}, forward pass of {PROMPT_TOKENS} tokens, medians of {MODEL_ROUNDS} interleaved rounds")
    print(f"{'':20}{'tokens/s':>10}{'x fp32':>8}{'x bf16':>8}")
    for arm, own in seconds.items():
        ratios = [seconds[base] / own for base in ("plain float32", "plain bfloat16")]
        print(f"{arm:20}{PROMPT_TOKENS / own:10.0f}{ratios[0]:8.2f}{ratios[1]:8.2f}")
    print("wanted: integer float32 at least 1.6x fp32; integer bfloat16 above 1.0x bf16")
