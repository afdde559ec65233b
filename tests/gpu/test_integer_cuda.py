"""Integer layers and those of bitsandbytes on CUDA. Skipped where there is no CUDA device."""

import pytest
import torch
from torch import Tensor, nn

from inferometer.quantization.bitsandbytes_layers import BitsandbytesLinear, Format, reason_not_available
from inferometer.quantization.grids import IntegerGrid
from inferometer.quantization.integer import ActivationCoder, integer_layer
from inferometer.quantization.kernels import FALLBACK, exact_kernels, fastest_kernel, random_codes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

CUDA = torch.device("cuda")
PER_CHANNEL, PER_TOKEN = IntegerGrid("per_channel"), IntegerGrid("per_token")


def _layer_and_values(rows: int, outputs: int, inputs: int, dtype: torch.dtype) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, dtype=dtype).requires_grad_(False), torch.randn(rows, inputs).to(dtype)


def test_an_integer_product_runs_on_cuda() -> None:
    kernels = exact_kernels(CUDA)
    assert FALLBACK not in kernels
    assert fastest_kernel(CUDA, 256, 512) in kernels


@pytest.mark.parametrize("shape", [(1, 64, 64), (17, 33, 70), (512, 2048, 2048)])
def test_products_on_cuda_are_exact(shape: tuple[int, int, int]) -> None:
    rows, outputs, inputs = shape
    codes, weight = random_codes(rows, inputs, CUDA), random_codes(outputs, inputs, CUDA)
    expected = (codes.cpu().long() @ weight.cpu().long().T).float()
    for kernel in (*exact_kernels(CUDA), FALLBACK):
        product = kernel.prepare(weight, torch.ones(outputs, device=CUDA))(codes)
        torch.testing.assert_close(product.cpu(), expected, rtol=2e-7, atol=8.0 if kernel == FALLBACK else 0.0)


@pytest.mark.parametrize("activations", [PER_TOKEN, IntegerGrid("per_token", symmetric=False), None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, 300])
def test_integer_layers_on_cuda_agree_with_those_on_a_cpu(
    activations: IntegerGrid | None, dtype: torch.dtype, rows: int
) -> None:
    layer, values = _layer_and_values(rows, 72, 100, dtype)

    def on(device: torch.device) -> Tensor:
        placed = layer.to(device)
        coder = ActivationCoder(activations) if activations else None
        served = integer_layer(PER_CHANNEL.quantized(placed.weight), placed.bias, coder, dtype)
        output: Tensor = served(values.to(device)).cpu()
        return output

    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(on(CUDA), on(torch.device("cpu")), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_on_cuda_are_those_of_the_grid(bits: int) -> None:
    layer, values = _layer_and_values(3, 64, 128, torch.float32)
    grid = IntegerGrid("per_group", 32, bits=bits)
    weight = layer.weight.to(CUDA)
    served = integer_layer(grid.quantized(weight), None, None, torch.float32)
    expected = nn.functional.linear(values.to(CUDA), grid.round_trip(weight))
    torch.testing.assert_close(served(values.to(CUDA)), expected)


@pytest.mark.parametrize("format", ["llm_int8", "nf4"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_layers_of_bitsandbytes_run_on_cuda(format: Format, dtype: torch.dtype) -> None:
    assert reason_not_available(CUDA) is None
    layer, values = _layer_and_values(9, 64, 128, dtype)
    layer, values = layer.to(CUDA), values.to(CUDA)
    served = BitsandbytesLinear(layer.weight, layer.bias, format)
    expected = layer(values)
    assert (served(values) - expected).float().norm() / expected.float().norm() < (
        0.03 if format == "llm_int8" else 0.15
    )
    assert served.stored_bytes < layer.weight.nbytes
