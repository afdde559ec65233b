"""Profiling on CUDA: events instead of a clock, torch's own memory counters, kernels that only GPUs have."""

from pathlib import Path

import pytest
import torch

from inferometer.capacity.shapes import shape_of
from inferometer.capacity.storage import kv_bytes_per_token
from inferometer.device import choose_device, energy_counter
from inferometer.heads import Heads
from inferometer.profiling import baseline, cache, kernels, latency, memory
from inferometer.profiling.subjects import Subject
from inferometer.profiling.tables import BASELINE, CACHE, CACHE_CHECKS, KERNELS, LATENCY, MEMORY
from inferometer.tables import write_table
from inferometer.timing import Enough
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")


def test_events_measure_what_a_clock_around_them_does() -> None:
    device = choose_device("cuda")
    begin = device.mark()
    torch.cuda._sleep(50_000_000)
    end = device.mark()
    device.synchronize()
    alone = device.milliseconds_between(begin, end)
    begin = device.mark()
    for _ in range(4):
        torch.cuda._sleep(50_000_000)
    end = device.mark()
    device.synchronize()
    assert device.milliseconds_between(begin, end) == pytest.approx(4 * alone, rel=0.2)


def test_latency_and_memory_are_measured(tmp_path: Path) -> None:
    device = choose_device("cuda")
    model = tiny_model().to(device.torch_device)  # type: ignore[arg-type]
    subject = Subject("fp", "float32", 3, model)
    shape = shape_of(model.config.to_dict(), "a tiny model")
    times = latency.measure([subject], [4, 16], [1, 2], 4, Enough(2), device, shape)
    write_table(LATENCY, times, tmp_path / "latency.parquet")
    assert (times["wall_ms"] > 0).all()
    held = memory.measure([subject], 4, [2, 20, 40], device)
    write_table(MEMORY, held, tmp_path / "memory.parquet")
    assert (held["cache_bytes"] == held["context_tokens"] * kv_bytes_per_token(shape, 32)).all()
    assert (held["peak_bytes"] >= held["memory_bytes"]).all()


def test_the_cache_changes_nothing_and_is_timed(tmp_path: Path) -> None:
    device = choose_device("cuda")
    model = tiny_model().to(device.torch_device)  # type: ignore[arg-type]
    checks = cache.check(model, [5, 20], 3, device)
    write_table(CACHE_CHECKS, checks, tmp_path / "checks.parquet")
    assert checks["same_tokens"].all()
    write_table(CACHE, cache.measure(model, checks, 3, Enough(2), device), tmp_path / "cache.parquet")


def test_fused_kernels_of_the_gpu_give_what_standard_attention_gives(tmp_path: Path) -> None:
    table = kernels.measure(Heads(8, 2, 64), [128, 512], ["bfloat16"], Enough(2), choose_device("cuda"))
    write_table(KERNELS, table, tmp_path / "kernels.parquet")
    measured = table[table["reason"].isna()]
    assert {"standard", "math", "flash"} <= set(measured["kernel"])
    assert (measured["difference"] < 0.05).all()


def test_the_baseline_has_energy_or_a_reason(tmp_path: Path) -> None:
    device = choose_device("cuda")
    model = tiny_model().to(device.torch_device)  # type: ignore[arg-type]
    table = baseline.measure(model, tiny_tokenizer(), {"one": "word1 word2"}, [1], 4, device)
    write_table(BASELINE, table, tmp_path / "baseline.parquet")
    counter = energy_counter(device)
    assert table["no_energy"].notna().all() if isinstance(counter, str) else (table["joules"] >= 0).all()
