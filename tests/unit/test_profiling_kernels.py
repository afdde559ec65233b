"""Attention kernels: that they are right, that what can't run is a row that says why, and what the samples come to."""

import gc
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from inferometer import timing
from inferometer.device import Device
from inferometer.heads import Heads
from inferometer.plotting import save
from inferometer.profiling import kernels
from inferometer.profiling.kernels import EVERY, Cell, Exact, Kernel, available, measure
from inferometer.profiling.kernels_figure import plot_kernels, said_of_refused
from inferometer.profiling.kernels_summary import NAMES, summarize
from inferometer.profiling.tables import KERNEL_SPEED, KERNELS
from inferometer.samples import refusal
from inferometer.tables import read_table, records, write_table
from inferometer.timing import Enough

pytestmark = pytest.mark.alone

CPU = Device("cpu", "a processor")
HEADS = Heads(query_heads=6, kv_heads=2, head_dim=16)
BY_NAME = {kernel.name: kernel for kernel in EVERY}
ON_CPU = {"standard", "math", "flash"}
TOLERANCE = {"float32": 2e-6, "bfloat16": 0.03}
LARGE = Cell(Heads(4, 2, 16), 1024, "float32")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", lambda: 0)  # takes longer than all that is measured here
    monkeypatch.setattr(timing, "LEAST_SAMPLE_S", 1e-4)


def written_out(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention, one query of one head at a time, in float64."""
    results = torch.zeros(queries.shape, dtype=torch.float64)
    heads, tokens, dim = queries.shape[1:]
    for head in range(heads):
        shared = head * keys.shape[1] // heads
        for token in range(tokens):
            seen = keys[0, shared, : token + 1].double()
            weights = torch.exp(seen @ queries[0, head, token].double() / dim**0.5)
            results[0, head, token] = weights @ values[0, shared, : token + 1].double() / weights.sum()
    return results


def no_mask(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(queries, keys, values, enable_gqa=True)


def planted(name: str, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Kernel:
    return Kernel(name, attend, lambda heads, size: 0)


def only(monkeypatch: pytest.MonkeyPatch, *some: Kernel) -> None:
    monkeypatch.setattr(kernels, "EVERY", some)


def reasons(table: pd.DataFrame) -> dict[tuple[str, int], str]:
    rows = table[table["reason"].notna()]
    return dict(zip(zip(rows["kernel"], rows["tokens"], strict=True), rows["reason"], strict=True))


def cell_of(speed: pd.DataFrame, kernel: str, dtype: str, tokens: int) -> dict[str, Any]:
    rows = speed[(speed["kernel"] == kernel) & (speed["dtype"] == dtype) & (speed["tokens"] == tokens)]
    [found] = records(rows)
    return found


def measured(table: pd.DataFrame) -> set[tuple[str, int]]:
    rows = table[table["reason"].isna()]
    return set(zip(rows["kernel"], rows["tokens"], strict=True))


# --- results -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("heads", [HEADS, Heads(3, 3, 8), Heads(4, 1, 32)])
def test_every_kernel_that_is_there_computes_causal_attention(heads: Heads, dtype: str) -> None:
    inputs = Cell(heads, 37, dtype).inputs(CPU)
    expected = written_out(*inputs)
    present = [found for kernel in EVERY if isinstance(found := available(kernel, heads, dtype, CPU), Kernel)]
    assert {kernel.name for kernel in present} >= ON_CPU
    for kernel in present:
        with kernel.chosen():
            results = kernel.attend(*inputs)
        assert results.dtype == inputs[0].dtype
        assert (results.double() - expected).abs().max() < TOLERANCE[dtype], kernel.name


@pytest.mark.parametrize("tokens", [1, 5, 200])
def test_rows_in_float64_are_those_of_the_standard_kernel(tokens: int) -> None:
    inputs = Cell(HEADS, tokens, "float32").inputs(CPU)
    assert Exact(*inputs).difference(written_out(*inputs)) < 1e-12


@pytest.mark.parametrize("token", [0, 299])
def test_a_fault_in_the_first_or_last_row_is_found(token: int) -> None:
    inputs = Cell(HEADS, 300, "float32").inputs(CPU)
    results = kernels.standard(*inputs)
    results[0, 5, token, 3] += 1
    assert Exact(*inputs).difference(results) == pytest.approx(1, abs=1e-5)


def test_a_kernel_that_forgets_the_mask_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, BY_NAME["standard"], planted("flash", no_mask))
    table = measure(HEADS, [512], ["float32", "bfloat16"], Enough(1), CPU)
    largest = table.groupby(["kernel", "dtype"])["difference"].max()
    for dtype, tolerance in TOLERANCE.items():
        assert largest["standard", dtype] < tolerance
        assert largest["flash", dtype] > 1


def test_a_kernel_that_cannot_share_heads_gets_them_repeated() -> None:
    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        assert queries.shape == keys.shape == values.shape, "as many heads of each"
        return kernels.standard(queries, keys, values)

    found = available(planted("efficient", attend), HEADS, "float32", CPU)
    assert isinstance(found, Kernel)
    inputs = Cell(HEADS, 20, "float32").inputs(CPU)
    assert (found.attend(*inputs).double() - written_out(*inputs)).abs().max() < 2e-6
    flash = BY_NAME["flash"]
    assert available(flash, HEADS, "float32", CPU) is flash, "what can share heads does"


# --- what can't be measured ----------------------------------------------------------------------------------------


def test_kernels_that_are_not_there_are_rows_that_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    table = measure(HEADS, [8, 70], ["float32", "bfloat16"], Enough(2), CPU)
    write_table(KERNELS, table, tmp_path / "kernels.parquet")
    stored = read_table(KERNELS, tmp_path / "kernels.parquet")
    assert set(stored["kernel"]) == set(NAMES) == set(BY_NAME)
    assert measured(stored) == {(name, tokens) for name in ON_CPU for tokens in (8, 70)}
    for name in ("efficient", "cudnn"):
        for dtype in ("float32", "bfloat16"):
            said = stored.loc[(stored["kernel"] == name) & (stored["dtype"] == dtype), "reason"]
            assert len(said) == 2
            assert said.str.startswith(f"this device has no such kernel for {dtype} (No viable backend").all()
    assert reasons(stored)["flash_attn", 8] == "the package flash_attn is not installed"
    counts = stored[stored["reason"].isna()].groupby(["kernel", "dtype", "tokens"]).size()
    assert counts.between(2, 4).all(), "two, or as many again and one where others were at work"
    assert stored["output_bytes"].eq(stored["dtype"].map({"float32": 4, "bfloat16": 2}) * 96 * stored["tokens"]).all()


def test_the_reason_is_what_pytorch_warned_of_before_it_raised() -> None:
    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        source = " (Triggered internally at sdp_utils.cpp:1.)"
        for line in ("Flash attention kernel not used because:", "Flash needs 16 bits.", "Flash needs 16 bits."):
            warnings.warn(line + source, stacklevel=1)
        warnings.warn("cuDNN attention has been runtime disabled." + source, stacklevel=1)
        raise RuntimeError("No available kernel. Aborting execution.\nmore")

    found = available(planted("flash", attend), HEADS, "float32", CPU)
    assert found == "this device has no such kernel for float32 (Flash needs 16 bits.)"


def test_a_cell_that_does_not_fit_says_so_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell(HEADS, 256, "float32")
    enough = (cell.bytes_for(BY_NAME["flash"]) + cell.bytes_for(BY_NAME["standard"])) // 2
    monkeypatch.setattr(Device, "available_bytes", lambda _: enough)
    only(monkeypatch, *(BY_NAME[name] for name in sorted(ON_CPU)))
    table = measure(HEADS, [16, 256], ["float32"], Enough(1), CPU)
    assert measured(table) == {("flash", 256), *((name, 16) for name in ON_CPU)}
    needed, there = (f"{count / 2**30:.3g}" for count in (cell.bytes_for(BY_NAME["standard"]), enough))
    assert (
        reasons(table)["standard", 256] == f"not enough memory: about {needed} GiB are needed and {there} GiB available"
    )
    monkeypatch.setattr(Device, "available_bytes", lambda _: 0)
    table = measure(HEADS, [16, 256], ["float32"], Enough(1), CPU)
    assert len(table) == len(reasons(table)) == 6


@pytest.mark.parametrize("calls_before", [0, 1, 3])
def test_memory_that_runs_out_in_a_call_is_said_and_the_rest_goes_on(
    calls_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        nonlocal calls
        calls += queries.shape[2] == 100
        if calls > calls_before:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nmore")
        return kernels.standard(queries, keys, values)

    only(monkeypatch, planted("math", attend), BY_NAME["standard"])
    table = measure(HEADS, [16, 100], ["float32"], Enough(2), CPU)
    assert measured(table) == {("math", 16), ("standard", 16), ("standard", 100)}
    expected = "not enough memory (CUDA out of memory. Tried to allocate 9.00 GiB.)"
    assert reasons(table) == {("math", 100): expected}
    assert len(table[(table["kernel"] == "math") & (table["tokens"] == 100)]) == 1


def test_a_kernel_that_fails_at_one_length_only_is_a_row_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if queries.shape[2] == 100:
            raise RuntimeError("no plan for this")
        return kernels.standard(queries, keys, values)

    only(monkeypatch, planted("cudnn", attend))
    table = measure(HEADS, [16, 100], ["float32"], Enough(1), CPU)
    assert reasons(table) == {("cudnn", 100): "fails at this length (no plan for this)"}
    assert measured(table) == {("cudnn", 16)}


# --- memory ------------------------------------------------------------------------------------------------------


forgets_peaks = pytest.mark.skipif(sys.platform != "linux", reason="this system never forgets a peak of memory")


def extra_bytes(name: str) -> int:
    inputs = LARGE.inputs(CPU)
    with BY_NAME[name].chosen():
        found = kernels._weigh(partial(BY_NAME[name].attend, *inputs), Exact(*inputs), CPU)
    assert isinstance(found, kernels.Weighed)
    assert found.extra_bytes is not None
    return found.extra_bytes


@forgets_peaks
@pytest.mark.parametrize("name", ["standard", "math"])
def test_scores_in_memory_are_found_and_foreseen(name: str) -> None:
    scores = LARGE.output_bytes * LARGE.tokens // LARGE.heads.head_dim
    extra = extra_bytes(name)
    assert extra > 1.9 * scores
    assert 0.85 < extra / LARGE.bytes_for(BY_NAME[name]) < 1.15


@forgets_peaks
def test_flash_attention_needs_no_scores() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # each has blocks of its own
    try:
        extra = extra_bytes("flash")
    finally:
        torch.set_num_threads(threads)
    assert LARGE.output_bytes <= extra < LARGE.output_bytes + 4 * 2**20


def test_a_peak_that_was_not_reset_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "peak_memory_bytes", lambda _: 2**40)
    only(monkeypatch, BY_NAME["standard"])
    assert measure(HEADS, [16], ["float32"], Enough(1), CPU)["extra_bytes"].isna().all()


# --- summary and figure --------------------------------------------------------------------------------------------


def samples() -> pd.DataFrame:
    """Made-up samples: flash takes a fifth of the time, and memory that grows like the length; the third is busy."""
    rows = []
    for kernel in ("standard", "flash", "cudnn"):
        for dtype, size in (("float32", 4), ("bfloat16", 2)):
            for tokens in (512, 1024, 2048):
                output = size * 96 * tokens
                cell = {"kernel": kernel, "dtype": dtype, "tokens": tokens, "output_bytes": output, "device": "cpu"}
                cell["score_bytes"] = size * 6 * tokens**2
                if kernel == "cudnn" or (kernel, dtype, tokens) == ("standard", "float32", 2048):
                    rows.append({**cell, **refusal("too little"), "extra_bytes": None, "difference": None})
                    continue
                wall = (5 if kernel == "standard" else 1) * size * (tokens / 512) ** 2
                extra = 12 * size * tokens**2 if kernel == "standard" else 2 * output
                kept = {"calls": 2, "cpu_ms": 2 * wall, "reason": None, "extra_bytes": extra, "difference": 1e-6}
                for repetition, factor in enumerate((1, 1.2, 10)):
                    load = {"foreign_load": 0.5 if factor == 10 else 0.0, "contaminated": factor == 10}
                    rows.append({**cell, **kept, **load, "repetition": repetition, "wall_ms": factor * wall})
    return pd.DataFrame(rows)


def test_the_summary_holds_every_kernel_against_the_standard_one(tmp_path: Path) -> None:
    speed = summarize(samples())
    write_table(KERNELS, samples(), tmp_path / "kernels.parquet")
    write_table(KERNEL_SPEED, speed.assign(model="a"), tmp_path / "speed.parquet")
    assert len(speed) == 3 * 2 * 3
    flash = cell_of(speed, "flash", "bfloat16", 1024)
    assert (flash["samples"], flash["contaminated"]) == (2, 0)
    assert flash["latency_ms"] == pytest.approx(1.1 * 2 * 4)
    assert flash["speedup"] == pytest.approx(5)
    assert flash["score_bytes"] == 2 * 6 * 1024 * 1024
    assert flash["extra_ratio"] == pytest.approx((2 * 2 * 96 * 1024) / (12 * 2 * 1024**2))
    standard = cell_of(speed, "standard", "float32", 512)
    assert (standard["speedup"], standard["extra_ratio"]) == (1, 1)
    alone = cell_of(speed, "flash", "float32", 2048)
    assert alone["latency_ms"] > 0
    assert (alone["speedup"], alone["extra_ratio"]) == (None, None), "there is nothing to hold it against"
    refused = speed[speed["kernel"] == "cudnn"]
    assert refused["samples"].eq(0).all()
    assert refused["reason"].eq("too little").all()
    for column in ("latency_ms", "speedup", "extra_bytes", "extra_ratio"):
        assert refused[column].isna().all()


def test_what_was_measured_can_be_summed_up_and_drawn(tmp_path: Path) -> None:
    speed = summarize(measure(HEADS, [16, 64], ["float32"], Enough(2), CPU))
    write_table(KERNEL_SPEED, speed.assign(model="a"), tmp_path / "speed.parquet")
    stored = read_table(KERNEL_SPEED, tmp_path / "speed.parquet")
    assert stored["speedup"].notna().sum() >= len(ON_CPU) * 2
    save(plot_kernels(stored), tmp_path / "kernels.svg", 60)


def test_the_figure_is_the_same_every_time(tmp_path: Path) -> None:
    speed = summarize(samples())
    for file in ("one", "two"):
        save(plot_kernels(speed), tmp_path / f"{file}.svg", 60)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    stored = speed.sort_values(["kernel", "dtype", "tokens"])
    assert said_of_refused(stored) == said_of_refused(speed), "whatever the order of rows"


def test_kernels_without_a_line_are_named_below_the_panels() -> None:
    speed = summarize(samples())
    figure = plot_kernels(speed)
    said = "Not measured: standard (float32 at 2k), cudnn."
    assert said_of_refused(speed) == figure.get_supxlabel() == said
    for axes in figure.axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert [label.get_text() for label in axes.get_xticklabels()] == ["512", "1k", "2k"]
    assert said_of_refused(speed[speed["reason"].isna()]) == ""


def test_summary_and_figure_need_no_torch() -> None:
    names = "inferometer.profiling.kernels_summary, inferometer.profiling.kernels_figure"
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
