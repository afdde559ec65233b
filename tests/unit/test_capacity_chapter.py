"""The capacity chapter's tables and figures, and what is measured of the machine."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from matplotlib.figure import Figure

from inferometer import timing
from inferometer.capacity import chapter, machine, tables
from inferometer.capacity.catalogue import find_shape, gpu, gpu_names
from inferometer.capacity.figures import plot_batches, plot_cache, plot_intensity
from inferometer.capacity.fit import Deployment, fit
from inferometer.capacity.machine import Arm
from inferometer.capacity.roofline import machine_ridges, roofs, summarize_machine
from inferometer.capacity.shapes import Shape
from inferometer.device import Device, choose_device, describe_machine
from inferometer.plotting import save
from inferometer.quantization import kernels
from inferometer.tables import Table, read_table, records, write_table
from inferometer.units import GIB
from tests.synthetic import THIS, machine_samples, study
from tests.synthetic import machine as made_up_machine

MODELS = ("llama-3-8b", "gemma-2-2b", "mixtral-8x7b", "smollm2-135m")
SHAPES = {name: find_shape(name) for name in MODELS}
SETTINGS: dict[str, Any] = {**study()["capacity"], "gpus": ["h100-80gb", "a100-80gb", "t4"], "overhead_gib": 1.5}


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    """Every table that is predicted."""
    return {
        "parameters": chapter.parameters(SHAPES),
        "weights": chapter.weights(SHAPES, "bfloat16"),
        "requests": chapter.requests(SHAPES, SETTINGS),
        "intensity": chapter.intensity(SHAPES, SETTINGS),
        "ridges": chapter.ridges(),
        "studies": chapter.studies(),
    }


@pytest.mark.parametrize("name", ["parameters", "weights", "requests", "intensity", "ridges", "studies"])
def test_a_predicted_table_is_what_its_declaration_says(
    name: str, frames: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    table: Table = getattr(tables, name.upper())
    write_table(table, frames[name], tmp_path / "table.parquet")
    assert len(read_table(table, tmp_path / "table.parquet")) == len(frames[name])


def test_parameters_of_parts_add_up(frames: dict[str, pd.DataFrame]) -> None:
    sums = frames["parameters"].groupby("model")[["parameters", "active_parameters"]].sum()
    for name, shape in SHAPES.items():
        assert tuple(sums.loc[name]) == (shape.parameters, shape.active_parameters)
    parts = frames["parameters"].groupby("model")["part"].agg(set)
    assert "head" not in parts["gemma-2-2b"], "its head is the embedding"
    assert "router" in parts["mixtral-8x7b"]


def test_every_deployment_has_a_row_and_a_refusal_says_why(frames: dict[str, pd.DataFrame]) -> None:
    rows = frames["requests"]
    assert len(rows) == len(MODELS) * 3 * 2 * 2 * 3, "models, GPUs, contexts, bits, and 1 GPU or 2 in two ways"
    refused = rows[rows["refused"].notna()]
    assert set(refused["model"]) == {"smollm2-135m"}
    assert set(refused["parallel"]) == {"tensor"}
    assert refused["refused"].str.contains("9 query heads").all()
    assert refused[["largest_batch", "weights_bytes_per_gpu", "shortfall_gib"]].isna().all(axis=None)
    assert rows[rows["refused"].isna()]["largest_batch"].notna().all()


def test_a_row_is_what_its_deployment_gives(frames: dict[str, pd.DataFrame]) -> None:
    rows = frames["requests"]
    where = {
        "model": "gemma-2-2b",
        "gpu": "t4",
        "parallel": "pipeline",
        "gpus": 2,
        "context_tokens": 8192,
        "kv_bits": 4,
    }
    for column, value in {**where, "kv_bits": 4}.items():
        rows = rows[rows[column] == value]
    [row] = records(rows)
    plan = Deployment(8192, pipeline_parallel=2, kv_bits=4, overhead_bytes=int(1.5 * GIB))
    found = fit(SHAPES["gemma-2-2b"], gpu("t4").memory_bytes, plan)
    assert row["largest_batch"] == found.largest_batch > 0
    assert row["weights_bytes_per_gpu"] == found.weights_bytes_per_gpu
    assert row["replicated"] == "the embedding, as the output head of the last stage"
    assert row["kv_bytes_per_request"] == pytest.approx(2 * row["kv_bytes_per_request_per_gpu"], rel=0.1)


def test_a_model_that_does_not_fit_lacks_what_the_row_says(frames: dict[str, pd.DataFrame]) -> None:
    rows = frames["requests"]
    row = rows[(rows["model"] == "mixtral-8x7b") & (rows["gpu"] == "h100-80gb") & (rows["gpus"] == 1)].iloc[0]
    assert row["largest_batch"] == 0
    lacks = row["weights_bytes_per_gpu"] + row["kv_bytes_per_request_per_gpu"] - 78.5 * GIB
    assert row["shortfall_gib"] == pytest.approx(lacks / GIB)


def test_only_decode_reads_a_rounded_cache(frames: dict[str, pd.DataFrame]) -> None:
    rows = frames["intensity"]
    assert set(rows[rows["phase"] == "prefill"]["kv_bits"]) == {16}
    decode = rows[rows["phase"] == "decode"].groupby("kind")["kv_bits"].agg(set)
    assert decode["flash"] == decode["layer"] == {16, 4}
    assert decode["matmul-only"] == decode["standard"] == {16}
    np.testing.assert_allclose(rows["intensity"], rows["flops"] / rows["bytes"])


def test_stored_bytes_say_why_something_is_missing() -> None:
    shapes: dict[str, Shape | str] = {"own": SHAPES["smollm2-135m"], "strange": "its family is not known"}
    schemes: dict[str, dict[str, Any]] = {"fp": {}, "nf4": {"weights": {"format": "nf4"}}}
    measured = {
        ("own", "fp"): chapter.Measured(538_060_288, None),
        ("own", "nf4"): chapter.Measured(0, "no library"),
        ("strange", "fp"): chapter.Measured(5, None),
    }
    rows = records(chapter.stored(shapes, {"own": "float32", "strange": "float32"}, schemes, measured))
    assert [row["difference_bytes"] for row in rows] == [256, None, None]
    assert [row["measured_bytes"] for row in rows] == [538_060_288, None, 5]
    assert rows[1]["reason"].startswith("no library; only bitsandbytes itself knows")
    assert rows[2]["reason"] == "its family is not known"


# --- the machine -------------------------------------------------------------------------------------------------


def _measured(monkeypatch: pytest.MonkeyPatch, folder: Path) -> pd.DataFrame:
    """MACHINE_SAMPLES of small products and little memory, written and read."""
    monkeypatch.setattr(timing, "LEAST_SAMPLE_S", 1e-4)
    monkeypatch.setattr(machine, "MOVED_BYTES", 2**16)
    monkeypatch.setattr(machine, "SMALLEST", 16)
    monkeypatch.setattr(machine, "LARGEST", 32)
    threads = torch.get_num_threads()
    try:
        rows = machine.measure(choose_device("cpu"))
    finally:
        torch.set_num_threads(threads)
    write_table(tables.MACHINE_SAMPLES, rows, folder / "samples.parquet")
    assert len(read_table(tables.MACHINE_SAMPLES, folder / "samples.parquet")) == len(rows)
    return rows


FLOATS = {("multiply", "float32"), ("multiply", "bfloat16"), ("read", "float32"), ("copy", "float32")}


def test_the_machine_is_measured_in_raw_samples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "fastest_kernel", lambda *_: kernels.Kernel("own", kernels.FALLBACK.prepare))
    rows = _measured(monkeypatch, tmp_path)
    repetitions = rows.groupby(["what", "dtype"])["repetition"].agg(list)
    assert set(repetitions.index) == {*FLOATS, ("multiply", "int8")}
    assert all(turns == list(range(len(turns))) for turns in repetitions)
    for (what, dtype), own in rows.groupby(["what", "dtype"]):
        clean, busy = (~own["contaminated"]).sum(), own["contaminated"].sum()
        assert clean == machine.REPETITIONS or busy == machine.REPETITIONS + 1, f"{what} {dtype} ended early or late"
    work = rows.groupby("what")["work"].agg(set)
    assert work["copy"] == {2 * 2**16}, "read and written"
    assert work["read"] == {2**16}, "the matrix"
    assert work["multiply"] <= {2 * 16**3, 2 * 32**3}
    assert (rows["wall_ms"] > 0).all()
    assert set(rows[rows["kernel"].notna()]["dtype"]) == {"int8"}
    assert set(rows["kernel"].dropna()) == {"own"}
    assert rows["reason"].isna().all()
    assert (rows.iloc[:5]["repetition"] == 0).all(), "all take a turn before any has its next"


def test_a_device_without_an_exact_integer_kernel_has_a_reason_instead_of_a_rate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "fastest_kernel", lambda *_: kernels.FALLBACK)
    rows = _measured(monkeypatch, tmp_path)
    [refused] = records(rows[rows["dtype"] == "int8"])
    assert (refused["calls"], refused["wall_ms"], refused["work"], refused["kernel"]) == (0, None, None, None)
    assert refused["reason"] == machine.NO_KERNEL
    write_table(tables.MACHINE, summarize_machine(rows, THIS), tmp_path / "machine.parquet")
    found = read_table(tables.MACHINE, tmp_path / "machine.parquet")
    assert records(found)[0]["int8_giga_per_s"] is None
    assert records(found)[0]["int8_kernel"] is None
    assert found["samples"].tolist() == [len(rows) - 1]
    assert set(roofs(found).flops_per_s) == {"float32", "bfloat16"}
    assert machine_ridges(found)["dtype"].tolist() == ["float32", "bfloat16"]


@dataclass(frozen=True)
class Timing:
    """All that is asked of a sample of one size."""

    wall_ms: float


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ({2: 1, 4: 4, 8: 40}, 4),
        ({2: 1, 4: 7, 8: 49}, 8),
        ({2: 3, 4: 11, 8: 0.1}, 4),
        ({2: 20, 4: 1, 8: 1}, 2),
        ({2: 1, 4: 2, 8: 3, 16: 0.1}, 8),
    ],
    ids=["a smaller one was faster", "the largest", "what is long enough is the last", "long at once", "the limit"],
)
def test_of_products_of_many_sizes_the_fastest_counts(
    milliseconds: dict[int, float], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SMALLEST", 2)
    monkeypatch.setattr(machine, "LARGEST", 8)
    monkeypatch.setattr(machine, "interleaved", lambda arms, *_: [Timing(milliseconds[size]) for size in called[-1:]])
    called: list[int] = []
    arm, run = machine._fastest(
        lambda size: (Arm("multiply", "float32", float(size**3)), lambda: called.append(size)), Device("cpu", "A CPU")
    )
    run()
    assert (arm.work, called[-1]) == (expected**3, expected)


def test_the_machine_in_one_row_has_medians_of_clean_samples(tmp_path: Path) -> None:
    write_table(tables.MACHINE_SAMPLES, machine_samples(), tmp_path / "samples.parquet")
    samples = read_table(tables.MACHINE_SAMPLES, tmp_path / "samples.parquet")
    write_table(tables.MACHINE, summarize_machine(samples, THIS), tmp_path / "machine.parquet")
    [row] = records(read_table(tables.MACHINE, tmp_path / "machine.parquet"))
    assert (row["samples"], row["contaminated"], row["contaminated_taken"]) == (15, 5, 0)
    rates = {name: value for name, value in row.items() if name.endswith("_per_s")}
    assert rates == pytest.approx(
        {
            "float32_giga_per_s": 100,
            "bfloat16_giga_per_s": 1000,
            "int8_giga_per_s": 2000,
            "read_gb_per_s": 20,
            "copy_gb_per_s": 10,
            "bandwidth_gb_per_s": 20,
        }
    )
    assert row["int8_kernel"] == "int_mm"
    assert {name: row[name] for name in asdict(THIS)} == asdict(THIS)


def test_the_larger_bandwidth_is_the_roof() -> None:
    samples = machine_samples()
    slow = samples["wall_ms"].where(samples["what"] != "read", 4 * samples["wall_ms"])
    found = roofs(summarize_machine(samples.assign(wall_ms=slow), THIS))
    assert found.bytes_per_s == pytest.approx(1e10), "that of the copy"


def test_roofs_and_ridges_are_those_of_the_machine() -> None:
    found = roofs(made_up_machine())
    assert found.flops_per_s == pytest.approx({"float32": 1e11, "bfloat16": 1e12, "int8": 2e12})
    assert found.bytes_per_s == pytest.approx(2e10)
    ridges = machine_ridges(made_up_machine()).set_index("dtype")
    assert ridges["ridge"].to_dict() == pytest.approx({"float32": 5, "bfloat16": 50, "int8": 100})
    assert ridges["peak_giga_per_s"].to_dict() == pytest.approx({"float32": 100, "bfloat16": 1000, "int8": 2000})
    assert ridges["bandwidth_gb_per_s"].tolist() == pytest.approx([20, 20, 20])


def test_the_best_clean_sample_is_the_roof() -> None:
    rows = machine_samples()
    fast = rows["wall_ms"].where((rows["what"] != "read") | (rows["repetition"] != 1), rows["wall_ms"] / 2)
    clean = rows.assign(wall_ms=fast, contaminated=False)
    assert roofs(summarize_machine(clean, THIS)).bytes_per_s == pytest.approx(4e10)
    busy = clean.assign(contaminated=clean["repetition"] == 1)
    assert roofs(summarize_machine(busy, THIS)).bytes_per_s < 4e10, "others may have lent it their turn"


def test_an_arm_without_clean_samples_has_the_best_of_all_and_leaves_the_others_alone() -> None:
    rows = machine_samples()
    busy = rows["contaminated"] | (rows["what"] == "copy")
    slow = rows["wall_ms"].where(rows["what"] != "copy", rows["repetition"].map({0: 900.0, 1: 100.0, 2: 200.0}))
    found = summarize_machine(rows.assign(contaminated=busy, wall_ms=slow), THIS)
    assert found["contaminated_taken"].tolist() == [3]
    assert found["copy_gb_per_s"].tolist() == pytest.approx([10])
    assert found["float32_giga_per_s"].tolist() == pytest.approx([100])


def test_what_was_measured_on_is_what_this_process_runs_on() -> None:
    device = Device("cpu", "A CPU")
    found = describe_machine(device)
    assert (found.device, found.device_name, found.features) == ("cpu", "A CPU", device.features)
    assert (found.torch_threads, found.torch) == (torch.get_num_threads(), torch.__version__)
    assert found.transformers == transformers.__version__


def test_roofs_need_no_torch() -> None:
    code = "import sys, inferometer.capacity.roofline; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- figures -----------------------------------------------------------------------------------------------------

PLOTS: dict[str, Callable[[dict[str, pd.DataFrame]], Figure]] = {
    "batches": lambda frames: plot_batches(frames["requests"], "llama-3-8b", "h100-80gb"),
    "cache": lambda frames: plot_cache(frames["requests"], "llama-3-8b"),
    "intensity": lambda frames: plot_intensity(
        frames["intensity"], frames["ridges"], made_up_machine(), "llama-3-8b", SETTINGS["gpus"]
    ),
}


@pytest.mark.parametrize("name", PLOTS)
def test_the_same_tables_give_the_same_bytes(name: str, frames: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    before = plt.get_fignums()
    for copy in ("one", "two"):
        save(PLOTS[name](frames), tmp_path / copy / "figure.svg", 40)
    assert (tmp_path / "one/figure.svg").read_bytes() == (tmp_path / "two/figure.svg").read_bytes()
    assert plt.get_fignums() == before, "a saved figure is closed"


def test_batches_of_gpus_with_the_same_memory_share_a_line(frames: dict[str, pd.DataFrame]) -> None:
    left, middle, right = PLOTS["batches"](frames).axes
    labels = [text.get_text() for text in left.get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == ["a100-80gb, h100-80gb", "t4"]
    rows = frames["requests"]
    own = rows[(rows["model"] == "llama-3-8b") & (rows["gpu"] == "h100-80gb") & (rows["gpus"] == 1)]
    floats = own[own["kv_bits"] == 16].sort_values("context_tokens")["largest_batch"].astype(float)
    np.testing.assert_array_equal(np.asarray(middle.lines[0].get_ydata()), floats)
    assert [axes.get_yscale() for axes in (left, middle, right)] == ["log"] * 3
    assert np.asarray(right.lines[0].get_xdata()).tolist() == [1, 2]


def test_cache_shows_bits_of_one_model_and_all_models(frames: dict[str, pd.DataFrame]) -> None:
    left, right = PLOTS["cache"](frames).axes
    np.testing.assert_allclose(np.asarray(left.lines[0].get_ydata()), [0.125, 1.0])
    labels = [text.get_text() for text in right.get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == ["llama-3-8b, mixtral-8x7b", "gemma-2-2b", "smollm2-135m"], "the largest cache first"


def test_intensity_has_a_line_for_each_way_to_count_and_a_point_for_each_device(
    frames: dict[str, pd.DataFrame],
) -> None:
    left, middle, right = PLOTS["intensity"](frames).axes
    own = 3  # lines of the machine
    assert len(left.lines) == 5 + own
    assert len(middle.lines) == 7 + own, "two of them with 4 bits as well"
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels[0] == "this machine, float32"
    assert set(labels) == {
        "this machine, float32",
        "this machine, bfloat16",
        "this machine, int8",
        "h100-80gb, bfloat16",
        "a100-80gb, bfloat16",
        "t4, float16",
    }


def test_ridges_cover_the_whole_catalogue(frames: dict[str, pd.DataFrame]) -> None:
    assert set(frames["ridges"]["gpu"]) == set(gpu_names())
    h100 = frames["ridges"].set_index(["gpu", "dtype"])["ridge"]["h100-80gb", "bfloat16"]
    assert h100 == pytest.approx(989.5e12 / 3.35e12)
