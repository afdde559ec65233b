"""Profiling without a clock where that is possible: bytes, logits, flops, and samples that must say what they are."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, PreTrainedModel

from inferometer import device as devices
from inferometer import writing
from inferometer.blocks import decoder_blocks
from inferometer.capacity.intensity import SOFTMAX_FLOPS, model_attention
from inferometer.capacity.roofline import Roofs
from inferometer.capacity.shapes import Shape, shape_of
from inferometer.capacity.storage import kv_bytes_per_token, weight_bytes
from inferometer.device import Device, energy_counter, why_no_memory
from inferometer.errors import InferometerError
from inferometer.files import sha256_of
from inferometer.held import held_bytes
from inferometer.manifest import CheckpointFile, Manifest, check_context
from inferometer.memory import within
from inferometer.plotting import save
from inferometer.profiling import baseline, cache, figures, latency, memory, summary
from inferometer.profiling.generation import (
    first_layers,
    load_to_profile,
    phases,
    random_prompt,
)
from inferometer.profiling.roofline import OVERHEAD, Cell, cost, predict
from inferometer.profiling.subjects import Subject, layer_counts, subjects
from inferometer.profiling.tables import (
    BASELINE,
    CACHE,
    CACHE_CHECKS,
    CACHE_SPEED,
    KNEES,
    LATENCY,
    MEMORY,
    PROFILE,
    SLOPES,
)
from inferometer.tables import write_table
from inferometer.timing import LARGEST_FOREIGN_LOAD, Enough, interleaved_phases, phases_of
from inferometer.writing import decoded, encoded, read, write, write_without_cache
from tests.synthetic import baseline as made_up_baseline
from tests.synthetic import cache as made_up_cache
from tests.synthetic import latency as made_up_latency
from tests.synthetic import law_ms
from tests.synthetic import machine as made_up_machine
from tests.synthetic import memory as made_up_memory
from tests.tiny import tiny_checkpoint, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.alone

CPU = Device("cpu", "a processor")
FAMILIES = ("llama", "qwen2", "gemma2", "gpt2", "opt", "gpt_neox")
W8A8 = {
    "weights": {"bits": 8, "granularity": "per_channel"},
    "activations": {"bits": 8, "granularity": "per_token"},
    "engine": "integer",
}
ROOFS = Roofs({"float32": 1e9, "bfloat16": 4e9, "int8": 8e9}, 1e8)


def _shape(model: PreTrainedModel) -> Shape:
    return shape_of(model.config.to_dict(), "a tiny model")


def _subject(model: PreTrainedModel | None, layers: int = 3, **fields: Any) -> Subject:
    return Subject("fp", "float32", layers, model, **fields)


# --- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_cache_changes_nothing_about_what_is_written(kind: str) -> None:
    model = tiny_model(kind)
    prompt = random_prompt(model, 2, 9)
    token, kept = read(model, prompt)
    written = torch.cat([token, write(model, token, kept, 4)], dim=1)
    assert torch.equal(written, write_without_cache(model, prompt, 5))
    assert torch.equal(prompt, random_prompt(model, 2, 9)), "prompts are seeded"


def test_it_is_what_the_library_writes() -> None:
    model = tiny_model()
    prompt = random_prompt(model, 1, 7)
    theirs: Any = model.generate(prompt, max_new_tokens=6, min_new_tokens=6, do_sample=False, use_cache=True)  # type: ignore[operator]
    token, kept = read(model, prompt)
    assert torch.equal(torch.cat([prompt, token, write(model, token, kept, 5)], dim=1), theirs)


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_first_layers_are_those_of_the_model_and_all_come_back(kind: str) -> None:
    model = tiny_model(kind)
    prompt = random_prompt(model, 1, 5)
    before, blocks = model(prompt).logits, list(decoder_blocks(model).values())
    seen: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, place=place: seen.append(place)) for place, block in enumerate(blocks)
    ]
    with first_layers(model, 2):
        read(model, prompt)
    for handle in handles:
        handle.remove()
    assert seen == [0, 1]
    assert torch.equal(model(prompt).logits, before)


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILIES)
def test_bytes_of_the_cache_grow_exactly_as_theory_says(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    shape = _shape(model)
    table = memory.measure([_subject(model, layers) for layers in (1, 3)], 4, [2, 9, 17, 20], CPU)
    write_table(MEMORY, table, tmp_path / "memory.parquet")
    each = kv_bytes_per_token(shape, 32) // shape.layers
    assert (table["cache_bytes"] == table["context_tokens"] * table["layers"] * each).all()
    theories = {"tiny": summary.Theory(shape, 12, {"fp": {}}, ROOFS)}
    slopes = summary.slopes({"tiny": table}, theories)
    write_table(SLOPES, slopes, tmp_path / "slopes.parquet")
    exact = slopes[slopes["quantity"] == "cache_bytes"].set_index("layers")
    assert exact["ratio"].to_numpy() == pytest.approx(1, rel=1e-12)
    assert exact.loc[[1, 3], "r_squared"].astype(float).to_numpy() == pytest.approx(1, rel=1e-12)
    assert exact.loc[12, "bytes_per_token"] == pytest.approx(12 * each), "extrapolated"
    assert exact["extrapolated"].to_dict() == {1: False, 3: False, 12: True}


def test_what_a_view_keeps_alive_counts_whole_and_once() -> None:
    kept = DynamicCache()
    whole = torch.zeros(2, 1, 8, 4)
    kept.update(whole[0:1], whole[1:2], 0)
    layer: Any = kept.layers[0]
    layer.keys, layer.values = whole[0:1, :, :2], whole[1:2]
    assert held_bytes(kept) == whole.nbytes


def test_the_peak_is_that_since_the_last_reset() -> None:
    CPU.trim_memory()
    CPU.reset_peak_memory()
    before = CPU.peak_memory_bytes()
    large = torch.ones(2**26)  # 256 MiB
    during = CPU.peak_memory_bytes()
    assert CPU.own_memory_bytes() >= large.nbytes
    del large
    CPU.trim_memory()
    CPU.reset_peak_memory()
    after = CPU.peak_memory_bytes()
    assert during - before > 2**27 > after - before


def test_memory_that_runs_out_leaves_the_rows_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, real = tiny_model(), writing.next_token

    def failing(model: PreTrainedModel, tokens: torch.Tensor, kept: Any) -> torch.Tensor:
        if kept is not None and kept.get_seq_length() > 12:
            raise torch.OutOfMemoryError("no more\nat all")
        return real(model, tokens, kept)

    monkeypatch.setattr(writing, "next_token", failing)
    table = memory.measure([_subject(model)], 4, [2, 8, 16], CPU)
    assert table["reason"].isna().tolist() == [True, True, False]
    assert table["reason"].iloc[2] == "not enough memory (no more)"
    assert table["cache_bytes"].notna().tolist() == [True, True, False]


# --- time ---------------------------------------------------------------------------------------------------------


def _sleeper(prefill_s: float, decode_s: float) -> PreTrainedModel:
    """A model that sleeps before it computes: longer for a prompt than for a single token."""
    model = tiny_model()

    def sleep(_module: Any, arguments: Any, _keywords: Any) -> None:
        time.sleep(prefill_s if arguments[0].shape[1] > 1 else decode_s)

    model.register_forward_pre_hook(sleep, with_kwargs=True)
    return model


def test_a_model_that_sleeps_takes_as_long_as_it_sleeps(tmp_path: Path) -> None:
    model = _sleeper(0.8, 0.4)
    table = latency.measure([_subject(model)], [5], [1], 3, Enough(2), CPU, "unknown")
    write_table(LATENCY, table, tmp_path / "latency.parquet")
    found = table.groupby("phase")["wall_ms"].min()
    expected = {"prefill": 800, "decode": 400, "end_to_end": 1600}
    for phase, milliseconds in expected.items():
        assert milliseconds <= found[phase] <= 1.05 * milliseconds
    assert (table["cpu_ms"] < 0.5 * table["wall_ms"]).all(), "asleep it uses no processor"


def test_whole_passes_are_the_sums_of_their_phases() -> None:
    model = tiny_model()
    arms = [_subject(model, layers) for layers in (1, 3)]
    table = latency.measure(arms, [4, 9], [1, 2], 5, Enough(2), CPU, _shape(model))
    cell = ["layers", "prompt_tokens", "batch", "repetition"]
    by = table.set_index(cell).sort_index()
    prefill, decode, whole = (
        by[by["phase"] == phase]["wall_ms"].astype(float) for phase in ("prefill", "decode", "end_to_end")
    )
    pd.testing.assert_series_equal(whole, prefill + 4 * decode)
    assert (whole.groupby(cell[:-1]).size() >= 2).all()
    assert len(whole.groupby(cell[:-1])) == 2 * 2 * 2
    assert set(table["calls"][table["phase"] == "decode"]) == {4}


@contextmanager
def _hogs(count: int) -> Iterator[None]:
    """So many processes that do nothing but keep a processor busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_process_that_hogs_the_machine_is_noticed_and_its_samples_marked() -> None:
    def work() -> Iterator[tuple[str, int]]:
        time.sleep(0.5)
        yield "asleep", 1

    with _hogs(torch.get_num_threads() + 1):
        samples = list(interleaved_phases({"a": work}, Enough(2), CPU))
    assert all(sample.foreign_load > LARGEST_FOREIGN_LOAD and sample.contaminated for sample in samples)
    assert len(samples) == 3, "repeated, within the bound"


def test_cells_that_do_not_fit_are_rows_with_the_reason_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tiny_model()
    shape = _shape(model)
    limit = latency.needed_bytes(shape, latency.Arm("fp", "float32", 3, 8, 1, 2))
    monkeypatch.setattr(devices.Device, "available_bytes", lambda _: limit)
    table = latency.measure([_subject(model)], [4, 8, 30], [1], 2, Enough(2), CPU, shape)
    write_table(LATENCY, table, tmp_path / "latency.parquet")
    reasons = table.groupby("prompt_tokens")["reason"].first()
    assert reasons.notna().to_dict() == {4: False, 8: False, 30: True}
    assert reasons[30].startswith("not enough memory: about ")
    assert set(table[table["prompt_tokens"] == 30]["phase"]) == set(latency.PHASES)


def test_memory_that_runs_out_in_a_cell_is_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    model, real = tiny_model(), writing.next_token

    def failing(model: PreTrainedModel, tokens: torch.Tensor, kept: Any) -> torch.Tensor:
        if tokens.shape[1] > 8:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return real(model, tokens, kept)

    monkeypatch.setattr(writing, "next_token", failing)
    table = latency.measure([_subject(model)], [8, 9], [1], 2, Enough(2), CPU, "unknown")
    assert table.groupby("prompt_tokens")["reason"].nunique().to_dict() == {8: 0, 9: 1}
    monkeypatch.setattr(writing, "next_token", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        latency.measure([_subject(model)], [8], [1], 2, Enough(2), CPU, "unknown")


def test_a_subject_that_can_not_run_here_has_its_reason_in_every_row(tmp_path: Path) -> None:
    table = latency.measure([_subject(None, reason="no kernel")], [4], [1, 2], 2, Enough(2), CPU, "unknown")
    write_table(LATENCY, table, tmp_path / "latency.parquet")
    assert table["reason"].eq("no kernel").all()
    assert len(table) == 6
    table = memory.measure([_subject(None, reason="no kernel")], 4, [2, 3, 4], CPU)
    assert table["reason"].eq("no kernel").all()


def test_subjects_run_their_scheme_and_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    models: dict[str, PreTrainedModel] = {}

    def load(dtype: str) -> PreTrainedModel:
        if dtype == "bfloat16":
            raise torch.OutOfMemoryError("too large")
        return models.setdefault(f"{dtype} {len(models)}", tiny_model())

    with subjects({"fp": {}, "w8a8": W8A8}, ["float32", "bfloat16"], [3], load) as own:
        found = {(subject.scheme, subject.dtype): subject for subject in own}
        assert found["w8a8", "float32"].kernels is not None
        assert found["fp", "float32"].kernels is None
        assert found["fp", "bfloat16"].reason == "not enough memory (too large)"
        rounded = found["w8a8", "float32"].model
        assert rounded is not None
        assert rounded is not found["fp", "float32"].model
        assert any("Integer" in type(module).__name__ for module in rounded.modules())
    assert not any("Integer" in type(module).__name__ for module in rounded.modules())


def _files(folder: Path) -> tuple[CheckpointFile, ...]:
    """A checkpoint's files, as a manifest has them."""
    return tuple(CheckpointFile(path.name, path.stat().st_size, sha256_of(path)) for path in sorted(folder.iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
def test_a_model_that_really_does_not_fit_is_a_subject_with_that_reason(tmp_path: Path) -> None:
    model = tiny_model()
    model.resize_token_embeddings(1_600_000)  # 205 MB in float32
    model.bfloat16().save_pretrained(tmp_path)
    files = tuple(
        CheckpointFile(file.name, file.stat().st_size, sha256_of(file)) for file in sorted(tmp_path.iterdir())
    )
    load = partial(load_to_profile, _manifest(files=files), tmp_path, CPU)
    with within(128 << 20), subjects({"fp": {}}, ["float32"], [3], load) as [found]:
        assert found.model is None
        assert str(found.reason).startswith("not enough memory (")


def test_the_head_of_a_profiled_model_is_never_copied(tmp_path: Path) -> None:
    """Torch copies the weight for a slice of states, which would pass for the model's own time."""
    folder = tiny_checkpoint(tmp_path / "tiny")
    model = load_to_profile(_manifest(files=_files(folder)), folder, CPU, "bfloat16")
    head: Any = model.get_output_embeddings()
    with torch.profiler.profile() as profile:
        read(model, random_prompt(model, 1, 9))
    products = {event.key for event in profile.key_averages()}
    assert "aten::mm" in products
    assert "aten::bmm" not in products, "the head is a matrix product, not a batch of one with a copy of its weight"
    assert head.weight.dtype == torch.bfloat16


# --- the cache ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_agree_with_and_without_the_cache(kind: str, tmp_path: Path) -> None:
    checks = cache.check(tiny_model(kind), [3, 20], 4, CPU)
    write_table(CACHE_CHECKS, checks, tmp_path / "checks.parquet")
    assert (checks["difference"] <= checks["tolerance"] * checks["largest_logit"]).all()
    assert checks["same_tokens"].all()


class ForgetfulCache(DynamicCache):
    """A cache with a planted fault: it hands out its first token's values as zeros."""

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        keys, values = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if key_states.shape[-2] == 1:
            values = values.clone()
            values[..., 0, :] = 0
        return keys, values


def test_a_cache_that_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "DynamicCache", ForgetfulCache)
    checks = cache.check(tiny_model(), [5], 4, CPU)
    assert (checks["difference"] > checks["tolerance"] * checks["largest_logit"]).all()


def test_prompts_without_memory_are_rows_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, real = tiny_model(), writing.next_token

    def failing(model: PreTrainedModel, tokens: torch.Tensor, kept: Any) -> torch.Tensor:
        if tokens.shape[1] > 8:
            raise torch.OutOfMemoryError("no more")
        return real(model, tokens, kept)

    monkeypatch.setattr(writing, "next_token", failing)
    checks = cache.check(model, [4, 9], 2, CPU)
    write_table(CACHE_CHECKS, checks, tmp_path / "checks.parquet")
    table = cache.measure(model, checks, 2, Enough(2), CPU)
    write_table(CACHE, table, tmp_path / "cache.parquet")
    speed = summary.cache_speed({"tiny": table})
    write_table(CACHE_SPEED, speed, tmp_path / "speed.parquet")
    assert speed.groupby("prompt_tokens")["reason"].count().to_dict() == {4: 0, 9: 2}


def test_both_ways_are_timed_at_every_length(tmp_path: Path) -> None:
    model = tiny_model()
    table = cache.measure(model, cache.check(model, [3, 20], 3, CPU), 3, Enough(2), CPU)
    write_table(CACHE, table, tmp_path / "cache.parquet")
    speed = summary.cache_speed({"tiny": table})
    write_table(CACHE_SPEED, speed, tmp_path / "speed.parquet")
    assert speed.groupby("cache").size().to_dict() == {False: 2, True: 2}
    with_cache = speed[speed["cache"]].set_index("prompt_tokens")
    without = speed[~speed["cache"]].set_index("prompt_tokens")
    expected = without["latency_ms"] / with_cache["latency_ms"]
    assert with_cache["speedup"].astype(float).to_numpy() == pytest.approx(expected.to_numpy())


# --- the baseline -------------------------------------------------------------------------------------------------


def test_the_baseline_holds_speed_memory_and_text(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    table = baseline.measure(model, tokenizer, {"one": "word1 word2", "two": "word3"}, [1, 3], 5, CPU)
    write_table(BASELINE, table, tmp_path / "baseline.parquet")
    assert table["prompt_tokens"].tolist() == [2, 2, 1, 1]
    speed = 1000 * table["batch"] * 5 / table["latency_ms"]
    assert table["tokens_per_s"].to_numpy() == pytest.approx(speed.to_numpy())
    assert (table["first_token_ms"] < table["latency_ms"]).all()
    assert table["no_energy"].notna().all() or table["joules"].notna().all()
    texts = table.groupby("prompt")["text"].nunique()
    assert (texts == 1).all(), "copies in a batch say what one alone says"


def test_a_chat_model_is_asked_in_its_own_format() -> None:
    tokenizer = tiny_tokenizer()
    plain = encoded(tokenizer, "word1")
    tokenizer.chat_template = "word9 {{ messages[0]['content'] }}{% if add_generation_prompt %} word8{% endif %}"
    assert (
        encoded(tokenizer, "word1").tolist()
        == tokenizer("word9 word1 word8", return_tensors="pt")["input_ids"].tolist()
    )
    assert plain.shape == (1, 1)


def test_text_ends_where_the_model_ends_it() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer("word1 word2 word3")["input_ids"]
    end = tokenizer.eos_token_id
    assert decoded(tokenizer, torch.tensor([*ids[:2], end, ids[2]])) == "word1 word2"
    assert decoded(tokenizer, torch.tensor(ids)) == "word1 word2 word3"


# --- energy and memory of the device ------------------------------------------------------------------------------


def _package(folder: Path, name: str, microjoules: int, kind: str = "package-0") -> Path:
    package = folder / name
    package.mkdir(parents=True)
    (package / "name").write_text(kind + "\n")
    (package / "max_energy_range_uj").write_text("10000000\n")
    (package / "energy_uj").write_text(f"{microjoules}\n")
    return package


def test_energy_is_summed_over_packages_and_counters_may_start_anew(tmp_path: Path) -> None:
    first, second = (_package(tmp_path, f"intel-rapl:{place}", 9_000_000, f"package-{place}") for place in (0, 1))
    _package(tmp_path, "intel-rapl:0:0", 5, "core")
    joules = energy_counter(CPU, tmp_path)
    assert not isinstance(joules, str)
    (first / "energy_uj").write_text("9500000\n")
    (second / "energy_uj").write_text("1000000\n")
    assert joules() == pytest.approx(0.5 + 2.0)
    (second / "energy_uj").write_text("1250000\n")
    assert joules() == pytest.approx(0.5 + 2.25)


def test_without_counters_there_is_a_reason(tmp_path: Path) -> None:
    reason = energy_counter(CPU, tmp_path)
    assert isinstance(reason, str)
    assert str(tmp_path) in reason


def test_only_a_lack_of_memory_is_a_reason() -> None:
    assert why_no_memory(torch.OutOfMemoryError("one\ntwo")) == "not enough memory (one)"
    assert why_no_memory(MemoryError()) == "not enough memory (MemoryError)"
    with pytest.raises(RuntimeError, match="shapes"):
        why_no_memory(RuntimeError("shapes do not match"))


# --- theory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gpt2", "opt", "gpt_neox"])
def test_operations_are_those_that_torch_counts(kind: str) -> None:
    """Torch counts products of matrices; attention it counts without mask and softmax, so its share is taken out."""
    model = tiny_model(kind)
    model.set_attn_implementation("eager")
    shape, batch, tokens = _shape(model), 2, 11
    with FlopCounterMode(display=False) as counter:
        model(random_prompt(model, batch, tokens), logits_to_keep=1)
    attention = model_attention(shape, tokens, tokens, batch)
    unmasked = 4 * batch * shape.query_heads * tokens**2 * shape.head_dim
    found = cost(shape, {}, Cell(tokens, tokens, batch, shape.layers, "float32"))
    assert (
        found.total_flops - shape.layers * attention.work.flops == counter.get_total_flops() - shape.layers * unmasked
    )
    assert attention.work.flops == batch * shape.query_heads * attention.scores * (4 * shape.head_dim + SOFTMAX_FLOPS)


def test_a_decoded_token_reads_the_weights_the_cache_and_little_else() -> None:
    shape = _shape(tiny_model())
    near, far = (cost(shape, {}, Cell(context, 1, 1, 3, "float32")) for context in (10, 50))
    assert far.bytes - near.bytes == pytest.approx(40 * kv_bytes_per_token(shape, 32))
    weights = sum(part.parameters for part in shape.parts if part.linear) * 4
    assert near.bytes > weights + 4 * shape.vocabulary * shape.hidden_size + 10 * kv_bytes_per_token(shape, 32)


def test_rounded_weights_are_read_in_their_own_bytes_and_multiplied_as_integers() -> None:
    shape = _shape(tiny_model())
    cell = Cell(10, 1, 1, 3, "float32")
    floats, rounded = (cost(shape, scheme, cell) for scheme in ({}, W8A8))
    saved = weight_bytes(shape, "float32", {}).total_bytes - weight_bytes(shape, "float32", W8A8).total_bytes
    assert floats.bytes - rounded.bytes == pytest.approx(saved)
    assert rounded.total_flops == floats.total_flops
    assert rounded.flops["int8"] == 2 * sum(
        part.copies * part.outputs * part.inputs for part in shape.parts if part.linear
    )
    weights_only = {"weights": {"bits": 4, "granularity": "per_channel"}, "engine": "integer"}
    assert set(cost(shape, weights_only, cell).flops) == {"float32"}, "codes of weights are multiplied as floats"


def test_a_pass_is_held_up_by_the_larger_limit_or_by_overhead() -> None:
    cell = Cell(10, 10, 1, 3, "float32")
    own = cost(_shape(tiny_model()), {}, cell)
    slow_memory = predict(own, replace(ROOFS, bytes_per_s=1.0))
    assert slow_memory.compute_ms < slow_memory.memory_ms
    assert slow_memory.predicted_ms == slow_memory.memory_ms == 1000 * own.bytes
    assert slow_memory.bound(1.5 * slow_memory.memory_ms) == "memory"
    slow_products = predict(own, replace(ROOFS, bytes_per_s=1e15))
    assert slow_products.predicted_ms == pytest.approx(1000 * own.total_flops / 1e9)
    assert slow_products.bound(slow_products.predicted_ms) == "compute"
    assert slow_products.bound(2.1 * slow_products.predicted_ms) == "overhead"
    with pytest.raises(InferometerError, match="float16"):
        predict(cost(_shape(tiny_model()), {}, replace(cell, dtype="float16")), ROOFS)


@pytest.fixture(scope="module")
def tiny_shape() -> Shape:
    return _shape(tiny_model())


def test_a_profile_holds_medians_theory_and_what_all_layers_would_take(tiny_shape: Shape, tmp_path: Path) -> None:
    table = made_up_latency()
    write_table(LATENCY, table, tmp_path / "latency.parquet")
    theories = {"tiny": summary.Theory(tiny_shape, 32, {"fp": {}}, ROOFS)}
    profile = summary.profile({"tiny": table}, theories)
    write_table(PROFILE, profile, tmp_path / "profile.parquet")
    cells: Any = profile.set_index(["layers", "prompt_tokens", "phase"])
    assert cells.loc[(2, 200, "prefill"), "latency_ms"] == pytest.approx(law_ms(2, 200, 1))
    assert cells.loc[(32, 200, "prefill"), "latency_ms"] == pytest.approx(law_ms(32, 200, 1))
    assert (
        cells.loc[(32, 200, "prefill"), "latency_ms_low"]
        < law_ms(32, 200, 1)
        < cells.loc[(32, 200, "prefill"), "latency_ms_high"]
    )
    assert cells["extrapolated"].groupby("layers").all().to_dict() == {1: False, 2: False, 32: True}
    row = cells.loc[(2, 200, "end_to_end")]
    assert row["latency_ms"] == pytest.approx(law_ms(2, 200, 1) * 1.4)
    assert row["tokens_per_s"] == pytest.approx(5000 / row["latency_ms"])
    parts = [cells.loc[(2, 200, phase)] for phase in ("prefill", "decode")]
    assert row["flops"] == pytest.approx(parts[0]["flops"] + 4 * parts[1]["flops"])
    assert row["ratio"] == pytest.approx(row["latency_ms"] / row["predicted_ms"])
    knees = summary.knees({"tiny": table}, profile)
    write_table(KNEES, knees, tmp_path / "knees.parquet")
    prefill = knees[knees["phase"] == "prefill"].set_index("layers")
    assert prefill["knee_tokens"].to_numpy() == pytest.approx(100, rel=0.05)
    assert prefill["flat_ms"].to_numpy() == pytest.approx([7, 9], rel=0.01)
    assert set(knees["layers"]) == {1, 2}


def test_what_holds_a_cell_up_goes_by_the_very_ratio_that_stands_beside_it(tiny_shape: Shape) -> None:
    """Of a whole pass too, whose passes may be held up by different limits."""
    for bytes_per_s in (1e6, 1e7, 3e7, 1e8):
        theory = summary.Theory(tiny_shape, None, {"fp": {}}, replace(ROOFS, bytes_per_s=bytes_per_s))
        profile = summary.profile({"tiny": made_up_latency()}, {"tiny": theory})
        assert ((profile["ratio"] > OVERHEAD) == (profile["bound"] == "overhead")).all()


def test_models_of_unknown_families_are_profiled_without_theory(tmp_path: Path) -> None:
    theories = {"odd": summary.Theory("its family is not known", None, {"fp": {}}, ROOFS)}
    profile = summary.profile({"odd": made_up_latency()}, theories)
    write_table(PROFILE, profile, tmp_path / "profile.parquet")
    assert profile["predicted_ms"].isna().all()
    assert not profile["extrapolated"].any()
    assert profile["latency_ms"].notna().all()


# --- figures ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_up(tiny_shape: Shape) -> dict[str, Any]:
    """Tables of the chapter, made up: of a shape with two numbers of layers, and of a model."""
    theories = {"tiny": summary.Theory(tiny_shape, 32, {"fp": {}}, ROOFS)}
    latencies, memories = {"tiny": made_up_latency()}, {"tiny": made_up_memory((1, 2), 512)}
    profile = summary.profile(latencies, theories)
    return {
        "profile": profile,
        "knees": summary.knees(latencies, profile),
        "memory": memories["tiny"],
        "slopes": summary.slopes(memories, theories),
        "cache": summary.cache_speed({"tiny": made_up_cache()}),
        "baseline": made_up_baseline(),
    }


PLOTS: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "latency": lambda tables: figures.plot_latency(tables["profile"], tables["knees"], "tiny"),
    "memory": lambda tables: figures.plot_memory(tables["memory"], tables["slopes"], "tiny"),
    "cache": lambda tables: figures.plot_cache_speed(tables["cache"], "tiny"),
    "roofline": lambda tables: figures.plot_roofline(tables["profile"], made_up_machine()),
    "baseline": lambda tables: figures.plot_baseline(tables["baseline"]),
}


@pytest.mark.parametrize("name", PLOTS)
def test_the_same_tables_give_the_same_bytes(name: str, made_up: dict[str, Any], tmp_path: Path) -> None:
    for copy in ("one", "two"):
        save(PLOTS[name](made_up), tmp_path / copy / "figure.svg", 40)
    assert (tmp_path / "one/figure.svg").read_bytes() == (tmp_path / "two/figure.svg").read_bytes()


def test_extrapolated_lines_are_dotted_and_called_so(made_up: dict[str, Any]) -> None:
    figure = PLOTS["latency"](made_up)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["fp, float32, 1 layers", "fp, float32, 2 layers", "fp, float32, 32 layers (extrapolated)"]
    plt.close(figure)


# --- what is asked for --------------------------------------------------------------------------------------------


def _manifest(**fields: Any) -> Manifest:
    own: dict[str, Any] = {
        "name": "m", "origin": "", "architecture": "", "parameters": 1, "layers": 2, "hidden_size": 1, "vocabulary": 1,
        "context_tokens": 100, "dtype": "float32", "random_weights": False, "seed": None, "files": (),
    }  # fmt: skip
    return Manifest(**{**own, **fields})


def test_shapes_run_with_two_numbers_of_layers_and_models_with_all() -> None:
    assert layer_counts(_manifest(layers=30)) == [30]
    assert layer_counts(_manifest(layers=2, random_weights=True)) == [1, 2]
    assert layer_counts(_manifest(layers=1, random_weights=True)) == [1]


def test_a_length_beyond_the_context_is_refused_with_its_key() -> None:
    check_context(_manifest(), 92, 8, "profiling.latency.prompt_tokens")
    with pytest.raises(InferometerError, match=r"`profiling.latency.prompt_tokens`: 93 .* context of m, 100 tokens"):
        check_context(_manifest(), 93, 8, "profiling.latency.prompt_tokens")


def test_phases_of_a_pass_are_a_prefill_and_the_decoded_tokens() -> None:
    model = tiny_model()
    found = phases_of("arm", partial(phases, model, random_prompt(model, 1, 4), 6, []), 0, CPU)
    assert [(sample.phase, sample.calls) for sample in found] == [("prefill", 1), ("decode", 5)]
