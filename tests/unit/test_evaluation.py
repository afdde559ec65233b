"""Evaluation: perplexity as its protocol says, and differences paired window by window."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from inferometer.errors import InferometerError
from inferometer.evaluation import perplexity
from inferometer.evaluation.perplexity import ROWS_AT_ONCE, score_windows
from inferometer.evaluation.summary import summarize_gains, summarize_perplexity
from inferometer.evaluation.tables import GAINS, PERPLEXITY, WINDOWS
from inferometer.intervals import bootstrap_mean
from inferometer.models import token_windows, tokenize
from inferometer.tables import read_table, write_table
from tests.tiny import CONFIGS, tiny_model, tiny_texts, tiny_tokenizer

Array = NDArray[np.float64]

COUNT = 40


def _windows(count: int = 3, tokens: int = 40, *, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(64, (1, tokens), generator=generator) for _ in range(count)]


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind != "mixtral"])
@torch.no_grad()
def test_scores_are_those_of_a_plain_loop_over_tokens(kind: str) -> None:
    model, windows = tiny_model(kind, outliers=False), _windows()
    scores = score_windows(model, windows)
    assert scores["window"].tolist() == [0, 1, 2]
    assert scores["tokens"].tolist() == [39, 39, 39]
    for found, window in zip(scores["nll"], windows, strict=True):
        logits = model(window).logits[0].double()
        tokens = window[0].tolist()
        losses = [
            math.log(sum(math.exp(value) for value in row)) - row[following]
            for row, following in zip(logits.tolist()[:-1], tokens[1:], strict=True)
        ]
        assert found == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary() -> None:
    model = tiny_model("gpt_neox")
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    scores = score_windows(model, _windows())
    assert np.exp(scores["nll"].mean()) == pytest.approx(64)


@pytest.mark.parametrize("rows", [1, 7, 39, 40])
def test_the_size_of_the_parts_that_logits_are_read_in_does_not_matter(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, windows = tiny_model("llama"), _windows()
    whole = score_windows(model, windows)
    assert windows[0].shape[1] < ROWS_AT_ONCE
    monkeypatch.setattr(perplexity, "ROWS_AT_ONCE", rows)
    np.testing.assert_allclose(score_windows(model, windows)["nll"], whole["nll"], rtol=1e-7)


def test_long_windows_are_read_in_parts_to_their_last_token() -> None:
    tokens = 2 * ROWS_AT_ONCE + 2  # so that the last part holds a single row
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(tokens - 1, 64, generator=generator)
    targets = torch.randint(64, (tokens - 1,), generator=generator)
    expected = -logits.double().log_softmax(dim=-1)[torch.arange(tokens - 1), targets].mean()
    assert perplexity._window_nll(logits, targets) == pytest.approx(float(expected), rel=1e-7)


def test_half_precision_logits_are_scored_in_float() -> None:
    model = tiny_model("llama", outliers=False).bfloat16()
    window = _windows(1)[0]
    with torch.no_grad():
        logits = model(window).logits[0, :-1].double()
    expected = -logits.log_softmax(dim=-1)[torch.arange(39), window[0, 1:]].mean()
    assert score_windows(model, [window])["nll"].tolist() == pytest.approx([float(expected)], rel=1e-6)


def test_windows_of_different_lengths_have_their_own_counts() -> None:
    windows = [*_windows(1, 40), *_windows(1, 2), *_windows(1, 17)]
    assert score_windows(tiny_model("llama"), windows)["tokens"].tolist() == [39, 1, 16]


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight", "lm_head.weight"])
def test_weights_that_are_not_numbers_are_an_error_that_says_so(name: str) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_parameter(name)[3] = float("nan")
    with pytest.raises(InferometerError, match=r"logits are not numbers \(NaN\) in window 0; .* `dtype` of the model"):
        score_windows(model, _windows())


def test_the_protocol_is_that_of_the_reference_from_texts_to_perplexity() -> None:
    model, tokenizer, texts = tiny_model("llama", outliers=False), tiny_tokenizer(), tiny_texts(20, 13)
    tokens = tokenizer("\n\n".join(texts), return_tensors="pt").input_ids
    length, losses = 32, []
    count = tokens.numel() // length
    assert tokens.numel() % length, "there must be a tail to drop"
    for index in range(count):
        batch = tokens[:, index * length : (index + 1) * length]
        with torch.no_grad():
            loss = model(batch, labels=batch).loss
        losses.append(float(loss) * length)
    expected = math.exp(sum(losses) / (count * length))
    scores = score_windows(model, token_windows(tokenize(tokenizer, texts), length, "all", "the text"))
    assert len(scores) == count
    assert math.exp(scores["nll"].mean()) == pytest.approx(expected, rel=1e-5)


# --- summaries ---------------------------------------------------------------------------------------------------


def _table(nll: Array, **changes: Any) -> pd.DataFrame:
    """A WINDOWS table with these scores."""
    identity: dict[str, Any] = {"corpus": "wiki", "protocol": "smoothquant", "device": "cpu", "dtype": "float32"}
    return pd.DataFrame({"window": range(len(nll)), "tokens": 511, "nll": nll}).assign(**identity | changes)


def _study(seed: int = 0, count: int = COUNT) -> dict[tuple[str, str], pd.DataFrame]:
    """Correlated scores of two models under four schemes: text that is hard is hard for all of them."""
    generator = np.random.default_rng(seed)
    windows = {}
    for model, level in (("a", 3.0), ("b", 2.5)):
        difficulty = generator.normal(level, 0.3, count)
        for scheme, cost in (("fp", 0.0), ("w8a8", 0.03), ("w8a8-smooth", 0.012), ("w4a4", 5.0)):
            noise = generator.normal(cost, cost / 5, count) if cost else 0.0
            windows[model, scheme] = _table(difficulty + noise)
    return windows


def _nll(windows: dict[tuple[str, str], pd.DataFrame], model: str, scheme: str) -> Array:
    return windows[model, scheme]["nll"].to_numpy()


def _row(table: pd.DataFrame, model: str, scheme: str) -> pd.Series:
    [(_, row)] = table[(table["model"] == model) & (table["scheme"] == scheme)].iterrows()
    return row


def test_a_perplexity_and_its_ratio_are_those_computed_by_hand() -> None:
    windows = {
        ("a", "fp"): _table(np.log([2.0, 8.0])),
        ("a", "w8a8"): _table(np.log([4.0, 64.0])),
    }
    row = _row(summarize_perplexity(windows, "fp"), "a", "w8a8")
    assert row["perplexity"] == pytest.approx(16)  # the geometric mean of 4 and 64
    assert row["ratio"] == pytest.approx(4)  # of 2 and 8
    assert (row["ratio_low"], row["ratio_high"]) == pytest.approx((2, 8))
    assert (row["perplexity_low"], row["perplexity_high"]) == pytest.approx((4, 64))
    assert (row["windows"], row["tokens"], row["window_tokens"]) == (2, 1022, 512)


def test_every_row_is_that_of_its_own_windows() -> None:
    windows = _study()
    table = summarize_perplexity(windows, "fp")
    assert len(table) == len(windows)
    for model, scheme in windows:
        row, nll, reference = _row(table, model, scheme), _nll(windows, model, scheme), _nll(windows, model, "fp")
        own, paired = bootstrap_mean(nll), bootstrap_mean(nll - reference)
        for name, interval in (("perplexity", own), ("ratio", paired)):
            found = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
            assert found == pytest.approx(np.exp([interval.estimate, interval.low, interval.high]).tolist())
        assert row["ratio"] == pytest.approx(row["perplexity"] / _row(table, model, "fp")["perplexity"])


def test_the_ratio_of_the_reference_is_exactly_one() -> None:
    table = summarize_perplexity(_study(), "fp")
    for model in ("a", "b"):
        row = _row(table, model, "fp")
        assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == (1.0, 1.0, 1.0)


def test_the_paired_interval_is_far_narrower_than_that_of_two_perplexities_apart() -> None:
    table = summarize_perplexity(_study(), "fp")
    row, base = _row(table, "a", "w8a8"), _row(table, "a", "fp")
    assert 1 < row["ratio_low"] < row["ratio"] < row["ratio_high"]
    apart = row["perplexity_high"] / base["perplexity_low"] - row["perplexity_low"] / base["perplexity_high"]
    assert row["ratio_high"] - row["ratio_low"] < apart / 20
    assert row["perplexity_low"] < base["perplexity"] < row["perplexity_high"], "unpaired, the difference drowns"


def test_windows_are_paired_by_their_number_and_not_by_their_place() -> None:
    windows = _study()
    expected = summarize_perplexity(windows, "fp"), summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp")
    shuffled = {key: table.sample(frac=1, random_state=number) for number, (key, table) in enumerate(windows.items())}
    found = summarize_perplexity(shuffled, "fp"), summarize_gains(shuffled, {"w8a8-smooth": "w8a8"}, "fp")
    for one, other in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(_table(np.ones(COUNT - 1)), id="one window fewer"),
        pytest.param(_table(np.ones(COUNT), corpus="news"), id="another corpus"),
        pytest.param(_table(np.ones(COUNT), protocol="strided"), id="another protocol"),
        pytest.param(_table(np.ones(COUNT), tokens=255), id="shorter windows"),
        pytest.param(_table(np.ones(COUNT), window=range(1, COUNT + 1)), id="windows from elsewhere"),
    ],
)
def test_other_windows_are_never_paired(other: pd.DataFrame) -> None:
    windows = {("a", "fp"): _table(np.ones(COUNT)), ("a", "w8a8"): other, ("a", "w8a8-smooth"): _table(np.ones(COUNT))}
    with pytest.raises(ValueError, match="w8a8 and fp of a were not scored on the same windows"):
        summarize_perplexity(windows, "fp")
    with pytest.raises(ValueError, match="w8a8 and fp of a were not scored on the same windows"):
        summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp")


def test_models_may_have_windows_of_their_own() -> None:
    windows = _study() | {
        ("c", "fp"): _table(np.arange(5.0), tokens=127),
        ("c", "w8a8"): _table(np.ones(5), tokens=127),
    }
    row = _row(summarize_perplexity(windows, "fp"), "c", "w8a8")
    assert (row["windows"], row["window_tokens"]) == (5, 128)


def test_gains_are_those_computed_by_hand() -> None:
    windows = {
        ("a", "fp"): _table(np.log([4.0, 4.0])),
        ("a", "w8a8"): _table(np.log([8.0, 8.0])),
        ("a", "w8a8-smooth"): _table(np.log([5.0, 5.0])),
    }
    [(_, row)] = summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp").iterrows()
    assert (row["model"], row["scheme"], row["base"]) == ("a", "w8a8-smooth", "w8a8")
    assert [row["ratio"], row["ratio_low"], row["ratio_high"]] == pytest.approx([5 / 8] * 3)
    assert [row["gap_closed"], row["gap_closed_low"], row["gap_closed_high"]] == pytest.approx([3 / 4] * 3)


def test_gains_are_paired_with_intervals_around_them() -> None:
    windows = _study()
    table = summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp")
    assert table["model"].tolist() == ["a", "b"]
    for row in table.to_dict("records"):
        fp, base, scheme = (_nll(windows, row["model"], name) for name in ("fp", "w8a8", "w8a8-smooth"))
        means = [math.exp(nll.mean()) for nll in (fp, base, scheme)]
        assert row["gap_closed"] == pytest.approx((means[1] - means[2]) / (means[1] - means[0]))
        assert row["ratio"] == pytest.approx(means[2] / means[1])
        paired = bootstrap_mean(scheme - base)
        assert [row["ratio_low"], row["ratio_high"]] == pytest.approx(np.exp([paired.low, paired.high]).tolist())
        assert row["gap_closed_low"] < row["gap_closed"] < row["gap_closed_high"]
        assert row["gap_closed_low"] > 0.4
        assert row["gap_closed_high"] < 0.8


@pytest.mark.parametrize("deviation", [0.0, 0.1])
def test_no_share_of_a_gap_is_given_where_no_gap_is_shown(deviation: float) -> None:
    windows = _study()
    noise = np.random.default_rng(1).normal(0, 1, COUNT)
    windows["a", "w8a8"] = _table(_nll(windows, "a", "fp") + deviation * (noise - noise.mean()) + deviation / 100)
    row = _row(summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp"), "a", "w8a8-smooth")
    assert row[["gap_closed", "gap_closed_low", "gap_closed_high"]].isna().all()
    assert row["ratio"] > 1


def test_a_scheme_that_makes_things_worse_closes_less_than_nothing() -> None:
    windows = _study()
    row = _row(summarize_gains(windows, {"w8a8": "w8a8-smooth"}, "fp"), "a", "w8a8")
    assert row["ratio_low"] > 1
    assert row["gap_closed_high"] < 0


def test_a_study_without_smoothing_has_an_empty_table_of_gains(tmp_path: Path) -> None:
    table = summarize_gains(_study(), {}, "fp")
    write_table(GAINS, table, tmp_path / "gains.parquet")
    assert read_table(GAINS, tmp_path / "gains.parquet").empty


def test_summaries_are_the_declared_tables(tmp_path: Path) -> None:
    windows = _study()
    windows["a", "w8a8"] = windows["a", "fp"].copy()  # with a null in it
    for table, frame in (
        (PERPLEXITY, summarize_perplexity(windows, "fp")),
        (GAINS, summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp")),
    ):
        write_table(table, frame, tmp_path / "table.parquet")
        assert len(read_table(table, tmp_path / "table.parquet")) == len(frame)


def test_scores_of_a_model_are_the_declared_table(tmp_path: Path) -> None:
    scores = score_windows(tiny_model("llama"), _windows()).assign(
        corpus="wiki", protocol="smoothquant", device="cpu", dtype="float32"
    )
    write_table(WINDOWS, scores, tmp_path / "windows.parquet")
    pd.testing.assert_frame_equal(
        read_table(WINDOWS, tmp_path / "windows.parquet"), scores[[column.name for column in WINDOWS.columns]]
    )


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.floats(0, 12), st.floats(-2, 6)), min_size=2, max_size=12))
def test_estimates_lie_within_their_intervals_or_at_most_at_their_ends(pairs: list[tuple[float, float]]) -> None:
    base, cost = (np.array(values) for values in zip(*pairs, strict=True))
    table = summarize_perplexity({("a", "fp"): _table(base), ("a", "w8a8"): _table(base + cost)}, "fp")
    for row in table.to_dict("records"):
        assert row["perplexity"] > 0
        assert row["ratio_low"] <= row["ratio_high"]
        assert np.exp(cost.min()) * (1 - 1e-9) <= row["ratio_high"] or row["scheme"] == "fp"
        assert row["ratio_low"] <= np.exp(cost.max()) * (1 + 1e-9) or row["scheme"] == "fp"
