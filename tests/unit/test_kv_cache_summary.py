"""Summaries of caches on few bits: planted differences are found, and only what was scored on the same is paired."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from inferometer.errors import InferometerError
from inferometer.intervals import bootstrap_mean
from inferometer.kv_cache import summary, theory
from inferometer.kv_cache.cache import Packing
from inferometer.kv_cache.tables import (
    CACHE_CHOICES,
    CACHE_LATENCY,
    CACHE_LENGTHS,
    CACHE_MEMORY,
    CACHE_PAIRS,
    CACHE_PERPLEXITY,
    CACHE_TRACE,
    KV_CACHE,
)
from inferometer.tables import Table, write_table
from tests import synthetic_kv_cache as made_up
from tests.synthetic_kv_cache import COSTS, ITEMS, POLICIES, REASON, WINDOWS, cells, measured

SCHEMES = ("fp", "nf4-bnb")
MODEL = "m"


@pytest.fixture(scope="module")
def raw() -> dict[tuple[str, str], summary.Measured]:
    return cells(MODEL, SCHEMES)


@pytest.fixture(scope="module")
def table(raw: dict[tuple[str, str], summary.Measured]) -> pd.DataFrame:
    return summary.summarize(raw, summary.lengths(raw), POLICIES)


@pytest.fixture(scope="module")
def pairs(raw: dict[tuple[str, str], summary.Measured]) -> pd.DataFrame:
    return summary.pairs(raw, POLICIES)


def _row(table: pd.DataFrame, policy: str, scheme: str = "fp") -> Any:
    [row] = table[(table["policy"] == policy) & (table["scheme"] == scheme)].itertuples()
    return row


def test_made_up_tables_and_summaries_fit_their_declarations(
    raw: dict[tuple[str, str], summary.Measured], table: pd.DataFrame, pairs: pd.DataFrame, tmp_path: Any
) -> None:
    declared: list[tuple[Table, pd.DataFrame]] = [(KV_CACHE, table), (CACHE_PAIRS, pairs)]
    declared += [(CACHE_LENGTHS, summary.lengths(raw)), (CACHE_TRACE, made_up.trace("entropy"))]
    for own in raw.values():
        declared += [(CACHE_PERPLEXITY, own.perplexity), (CACHE_CHOICES, own.choices)]
        declared += [(CACHE_LATENCY, own.latency), (CACHE_MEMORY, own.memory)]
    for number, (declaration, frame) in enumerate(declared):
        write_table(declaration, frame, tmp_path / f"{number}.parquet")


def test_means_and_intervals_are_those_of_window_means(table: pd.DataFrame) -> None:
    row = _row(table, "static-3")
    by_hand = COSTS["static-3"] * (1 + 0.1 * np.arange(WINDOWS))
    expected = bootstrap_mean(by_hand.astype("float32").astype("float64"))
    ends = (row.kl_divergence, row.kl_divergence_low, row.kl_divergence_high)
    assert ends == pytest.approx((expected.estimate, expected.low, expected.high))
    assert row.nll_change == pytest.approx(0.5 * by_hand.mean(), rel=1e-4)
    assert (row.windows, row.items) == (WINDOWS, ITEMS)
    assert row.effective_bits == pytest.approx(3.7)


def test_the_float_cache_differs_by_nothing_from_itself(table: pd.DataFrame) -> None:
    for scheme in SCHEMES:
        row = _row(table, "float", scheme)
        assert [row.nll_change, row.kl_divergence, row.accuracy_change] == [0, 0, 0]
        assert row.same_top_token == 1
        assert np.isnan(row.bits)


def test_changes_are_against_the_float_cache_under_the_same_weights(table: pd.DataFrame) -> None:
    assert _row(table, "static-4", SCHEMES[1]).nll_change == pytest.approx(
        1.5 * _row(table, "static-4").nll_change, rel=1e-3
    )


def test_right_answers_are_counted_by_the_likeliest_ending(table: pd.DataFrame) -> None:
    assert _row(table, "float").accuracy == pytest.approx(0.6)
    assert _row(table, "static-2").accuracy == pytest.approx(0.2)
    assert _row(table, "static-2").accuracy_change == pytest.approx(-0.4)
    assert _row(table, "static-2").accuracy_change_high < 0


def test_bytes_and_times_are_those_of_the_longest_prompt(table: pd.DataFrame) -> None:
    row = _row(table, "static-4")
    assert row.prompt_tokens == 2048
    assert row.cache_bytes == round(2048 * made_up.CELLS * 4.7 / 8)
    assert row.cache_bytes / row.predicted_bytes == pytest.approx(1.01)
    assert row.decode_ms == pytest.approx(20 + 2048 / 50 + 1), "the median of three that differ by 1 ms"
    assert (row.decode_ms_q25, row.decode_ms_q75) == pytest.approx((row.decode_ms - 0.5, row.decode_ms + 0.5))


def test_what_could_not_run_is_a_row_with_the_reason(table: pd.DataFrame, pairs: pd.DataFrame) -> None:
    row = _row(table, "quanto-4", SCHEMES[1])
    assert row.reason == REASON
    assert (row.windows, row.items, row.samples) == (0, 0, 0)
    assert all(np.isnan(value) for value in (row.nll, row.kl_divergence, row.accuracy, row.decode_ms))
    assert pd.isna(row.cache_bytes)
    assert _row(table, "quanto-4").windows == WINDOWS
    assert len(table) == len(POLICIES) * len(SCHEMES)


def test_a_policy_that_ran_nowhere_has_rows_and_no_pairs() -> None:
    own = {(MODEL, name): measured(name, ("fp",)) for name in ("float", "static-3", "random")}
    own[MODEL, "entropy"] = measured("entropy", ("fp",), refused=("fp",))
    policies = {name: POLICIES[name] for _, name in own}
    table = summary.summarize(own, summary.lengths(own), policies)
    assert _row(table, "entropy").reason == REASON
    found = summary.pairs(own, policies)
    assert list(zip(found["policy"], found["against"], strict=True)) == [("random", "static-3")]


def test_policies_are_described_by_their_entries(table: pd.DataFrame) -> None:
    row = _row(table, "entropy")
    assert (row.feature, row.bits, row.keys, row.group_size) == ("entropy", 3, "per_channel", 64)
    assert list(table.drop_duplicates("policy").sort_values("place")["policy"]) == list(POLICIES)


def test_grids_that_an_entry_leaves_out_are_those_of_the_cache() -> None:
    assert (Packing().keys, Packing().group_size) == (theory.KEYS, theory.GROUP_SIZE)


def test_choosing_policies_are_held_against_chance_and_the_same_bits_on_the_same_grids() -> None:
    chosen: dict[str, Any] = {"widths": [2, 3, 4], "average_bits": 3}
    policies: dict[str, dict[str, Any]] = {
        "float": {},
        "static-3": {"bits": 3},
        "spelt-out": {"bits": 3, "keys": "per_channel", "group_size": 64},
        "static-4": {"bits": 4},
        "finer": {"bits": 3, "group_size": 32},
        "other-keys": {"bits": 3, "keys": "per_token"},
        "with-recent": {"bits": 3, "recent_tokens": 32},
        "library": {"library": "quanto", "bits": 3},
        "entropy": {"feature": "entropy", **chosen},
        "random": {"feature": "random", **chosen},
        "random-finer": {"feature": "random", **chosen, "group_size": 32},
        "random-more": {"feature": "random", "widths": [2, 4, 8], "average_bits": 4},
    }
    assert list(summary.paired(policies)) == [
        ("entropy", "static-3"),
        ("entropy", "spelt-out"),
        ("entropy", "random"),
        ("random", "static-3"),
        ("random", "spelt-out"),
        ("random-finer", "finer"),
        ("random-more", "static-4"),
    ]


def test_planted_differences_are_found_with_their_signs(pairs: pd.DataFrame) -> None:
    found = pairs[pairs["scheme"] == "fp"].set_index(["policy", "against"])
    assert len(pairs) == 3 * len(SCHEMES)
    better, worse = (found.loc["entropy"].loc[against] for against in ("random", "static-3"))
    assert better["kl_change_low"] < better["kl_change"] < better["kl_change_high"] < 0
    assert 0 < worse["kl_change_low"] < worse["kl_change"] < worse["kl_change_high"]
    assert better["kl_change"] == pytest.approx(-0.02 * 1.35, rel=1e-4)
    assert better["accuracy_change"] == pytest.approx(1 / ITEMS)
    assert better["effective_bits_change"] == pytest.approx(0.01)


def test_pairing_is_narrower_than_the_intervals_themselves(table: pd.DataFrame, pairs: pd.DataFrame) -> None:
    pair = pairs[(pairs["policy"] == "entropy") & (pairs["against"] == "static-3") & (pairs["scheme"] == "fp")].iloc[0]
    row = _row(table, "entropy")
    assert pair["kl_change_high"] - pair["kl_change_low"] < row.kl_divergence_high - row.kl_divergence_low


@pytest.mark.parametrize(
    ("part", "column", "what"), [("perplexity", "position", "windows"), ("choices", "context_tokens", "questions")]
)
def test_what_was_scored_on_other_texts_is_not_paired(part: str, column: str, what: str) -> None:
    own = {(MODEL, name): measured(name, ("fp",)) for name in ("float", "static-3", "entropy")}
    lengths, policies = summary.lengths(own), {name: POLICIES[name] for _, name in own}
    shifted = getattr(own[MODEL, "static-3"], part)
    changed = dataclasses.replace(own[MODEL, "static-3"], **{part: shifted.assign(**{column: shifted[column] + 1})})
    own[MODEL, "static-3"] = changed
    with pytest.raises(InferometerError, match=f"static-3 and float of m, fp, were not scored on the same {what}"):
        summary.summarize(own, lengths, policies)
    with pytest.raises(InferometerError, match=f"entropy and static-3 of m, fp, were not scored on the same {what}"):
        summary.pairs(own, policies)


def test_contaminated_samples_are_left_out_of_lengths() -> None:
    own = measured("float", ("fp",))
    slow = own.latency["repetition"] == 0
    changed = own.latency.assign(contaminated=slow, wall_ms=own.latency["wall_ms"].where(~slow, 999.0))
    found = summary.lengths({(MODEL, "float"): dataclasses.replace(own, latency=changed)})
    assert found["latency_ms_q75"].max() < 100
    assert found["samples"].tolist() == [2, 2, 2]
