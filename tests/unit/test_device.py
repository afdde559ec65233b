"""The device: what is switched for a while comes back, and what a processor can do is read where Linux says it."""

from pathlib import Path

import pytest
import torch

from inferometer.device import FEATURES, Device, cpu_features, exact_products, quick_products


def test_quick_products_are_for_a_while_only() -> None:
    left, right = torch.rand(256, 256), torch.rand(256, 256)
    before, setting = left @ right, torch.backends.cuda.matmul.fp32_precision
    with quick_products():
        torch.testing.assert_close(left @ right, before, rtol=0.01, atol=0)
        with exact_products():
            assert torch.equal(left @ right, before)
    assert torch.equal(left @ right, before)
    assert torch.backends.cuda.matmul.fp32_precision == setting


X86 = """\
processor\t: 0
model name\t: A Processor
vmx flags\t: fma
flags\t\t: fpu avx avx2 amx_int8 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile hypervisor

processor\t: 1
flags\t\t: fpu fma
"""
ARM = """\
processor\t: 0
Features\t: fp asimd evtstrm asimddp sve i8mm bf16
CPU implementer\t: 0x41
"""


@pytest.mark.parametrize(
    ("cpuinfo", "features"),
    [
        (X86, "avx2 avx512f avx512_vnni avx512_bf16 amx_tile amx_bf16 amx_int8"),
        (ARM, "asimd asimddp i8mm bf16 sve"),
        ("flags\t: fpu sse2\n", ""),
    ],
    ids=["x86", "arm", "none of them"],
)
def test_instruction_sets_are_those_of_the_first_processor_that_matter(
    cpuinfo: str, features: str, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert cpu_features(tmp_path / "cpuinfo") == features


@pytest.mark.parametrize(("capability", "features"), [("AVX2", "avx2"), ("DEFAULT", "")])
def test_without_a_list_torch_says_what_the_processor_can(
    capability: str, features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert cpu_features(tmp_path / "nothing") == features
    (tmp_path / "cpuinfo").write_text("processor\t: 0\n")
    assert cpu_features(tmp_path / "cpuinfo") == features, "a list without such a line"


def test_features_of_this_processor_are_known_ones() -> None:
    assert set(Device("cpu", "A CPU").features.split()) <= {*FEATURES, torch.backends.cpu.get_cpu_capability().lower()}
