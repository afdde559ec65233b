"""The same numbers on CUDA as on a CPU. Skipped where there is no CUDA device."""

import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.calibration.calibrate import calibrate
from inferometer.capacity.machine import measure
from inferometer.capacity.roofline import roofs, summarize_machine
from inferometer.device import Device, choose_device, describe_machine
from inferometer.evaluation.perplexity import score_windows
from inferometer.evaluation.reference import ReferenceHead
from inferometer.folding import TOLERANCE, folded
from inferometer.quantization.model import quantized
from inferometer.schemes import Scheme
from inferometer.smoothing.fold import folding_changes
from inferometer.smoothing.proof import prove_equivalence
from inferometer.smoothing.sites import find_sites
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

W8A8 = Scheme.of(
    "w8a8",
    {"weights": {"bits": 8, "granularity": "per_channel"}, "activations": {"bits": 8, "granularity": "per_token"}},
)


@pytest.fixture
def cuda() -> Device:
    return choose_device("cuda")


@pytest.fixture
def windows() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(64, (1, 32), generator=generator) for _ in range(4)]


def _tiny_model_on(device: Device) -> PreTrainedModel:
    model = tiny_model()
    model.to(device.torch_device)  # type: ignore[arg-type]  # transformers wraps `to`
    return model


def _on_both(cuda: Device, measure: Callable[[PreTrainedModel], Any]) -> tuple[Any, Any]:
    return measure(tiny_model()), measure(_tiny_model_on(cuda))


def test_automatic_device_is_cuda(cuda: Device) -> None:
    assert choose_device("auto") == cuda
    assert choose_device("cpu").kind == "cpu"


def test_peak_memory_starts_anew_after_a_reset(cuda: Device) -> None:
    block = torch.empty(1 << 26, dtype=torch.uint8, device=cuda.torch_device)
    assert cuda.peak_memory_bytes() >= block.nbytes
    del block
    cuda.reset_peak_memory()
    assert cuda.peak_memory_bytes() < 1 << 26


def test_calibration_tables_agree_with_those_of_a_cpu(cuda: Device, windows: list[Tensor]) -> None:
    on_cpu, on_cuda = _on_both(cuda, lambda model: calibrate(model, windows, [1]))
    for table in ("activations", "weights"):
        assert_frame_equal(getattr(on_cpu, table), getattr(on_cuda, table), rtol=1e-3, atol=1e-4)


def test_scores_agree_with_those_of_a_cpu(cuda: Device, windows: list[Tensor]) -> None:
    def score(model: PreTrainedModel) -> pd.DataFrame:
        head = ReferenceHead(model)
        with quantized(model, W8A8, [], {}):
            return score_windows(model, windows, head).windows

    on_cpu, on_cuda = _on_both(cuda, score)
    assert_frame_equal(on_cpu, on_cuda, rtol=1e-3)


def test_smoothing_is_proved_on_cuda(cuda: Device, windows: list[Tensor]) -> None:
    model = _tiny_model_on(cuda)
    sites, _ = find_sites(model)
    factors = {site.name: torch.rand(32) + 0.5 for site in sites}
    assert prove_equivalence(model, sites, factors, windows[0].to(cuda.torch_device)) <= TOLERANCE
    head = ReferenceHead(model)
    with folded(folding_changes(model, sites, factors)), quantized(model, W8A8, [], {}):
        assert score_windows(model, windows, head).windows["nll"].notna().all()


def test_the_speed_of_a_gpu_is_measured_within_what_gpus_can_do(cuda: Device) -> None:
    samples = measure(cuda)
    assert set(samples["device"]) == {"cuda"}
    found = roofs(summarize_machine(samples, describe_machine(cuda)))
    assert 1e11 < found.flops_per_s["float32"] < found.flops_per_s["bfloat16"] < 1e16
    assert 1e10 < found.bytes_per_s < 2e13


def test_a_gpu_states_its_compute_capability(cuda: Device) -> None:
    assert re.fullmatch(r"compute capability \d+\.\d", cuda.features)
