"""What is made of evicted sinks: stretches, pairs, the figure and the words."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.axes import Axes

from inferometer.attention.eviction_figures import plot_eviction
from inferometer.attention.eviction_summary import FIRST_TOKENS, kept, summarize_eviction
from inferometer.attention.eviction_tables import EVICTED
from inferometer.intervals import bootstrap_mean
from inferometer.plotting import save
from inferometer.report.eviction import _finding, said_of_eviction
from inferometer.tables import read_table, write_table
from tests.synthetic_eviction import LOSSES, WINDOW, eviction

REASON = "GPT2LMHeadModel has positions that are part of its tokens, and can't be counted anew in a cache"
REPORTED = yaml.safe_load((Path(__file__).parents[2] / "report/reported.yaml").read_text(encoding="utf-8"))["eviction"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return eviction()


@pytest.fixture(scope="module")
def evicted(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    path = tmp_path_factory.mktemp("eviction") / "eviction.parquet"
    write_table(EVICTED, summarize_eviction({"tiny": table}), path)
    return read_table(EVICTED, path)


def row_of(evicted: pd.DataFrame, arm: str, span: str) -> Any:
    """The one row of an arm and a stretch."""
    [row] = evicted[(evicted["arm"] == arm) & (evicted["span"] == span)].itertuples()
    return row


def test_stretches_cover_the_text_and_part_where_the_window_is_full(evicted: pd.DataFrame) -> None:
    own = evicted[evicted["arm"] == "window"]
    reach: Any = own.set_index("span")[["first_position", "last_position"]]
    last = 4 * WINDOW - 1
    assert reach.loc["before"].tolist() == [1, WINDOW]
    assert reach.loc["first"].tolist() == [WINDOW + 1, WINDOW + FIRST_TOKENS]
    assert reach.loc["after"].tolist() == [WINDOW + 1, last]
    quarters = reach.loc["quarter"].sort_values("first_position")
    covered = [place for row in quarters.itertuples() for place in range(row.first_position, row.last_position + 1)]
    assert covered == list(range(1, last + 1))
    assert len(quarters) == 16
    assert WINDOW in quarters["last_position"].tolist()


@pytest.mark.parametrize("span", ["before", "first", "after"])
@pytest.mark.parametrize("arm", list(LOSSES))
def test_perplexities_and_pairs_are_those_of_the_texts_means(
    arm: str, span: str, table: pd.DataFrame, evicted: pd.DataFrame
) -> None:
    row = row_of(evicted, arm, span)
    inside = table[table["position"].between(row.first_position, row.last_position)]
    means = {
        name: np.array([one["nll"].mean() for _, one in own.groupby("text")]) for name, own in inside.groupby("arm")
    }
    assert row.perplexity == pytest.approx(math.exp(means[arm].mean()))
    assert row.perplexity_low < row.perplexity < row.perplexity_high
    for quantity, pairs in (("increase", means[arm] - means["full"]), ("saved", means["window"] - means[arm])):
        if quantity == "saved" and arm != "window + 4":
            assert math.isnan(row.saved)
            continue
        found = bootstrap_mean(pairs)
        assert [getattr(row, f"{quantity}{end}") for end in ("", "_low", "_high")] == pytest.approx(
            [found.estimate, found.low, found.high], abs=1e-12
        )
    by_token = inside.pivot_table("nll", index=["text", "position"], columns="arm")
    assert row.difference == pytest.approx((by_token[arm] - by_token["full"]).abs().max())


def test_planted_losses_are_found_where_they_were_planted(evicted: pd.DataFrame) -> None:
    for arm, loss in LOSSES.items():
        assert row_of(evicted, arm, "before").difference == 0
        assert row_of(evicted, arm, "after").increase == pytest.approx(loss, rel=0.05)


def test_what_is_refused_has_rows_with_the_reason(tmp_path: Path) -> None:
    write_table(EVICTED, summarize_eviction({"tiny": eviction(reason=REASON)}), tmp_path / "eviction.parquet")
    found = read_table(EVICTED, tmp_path / "eviction.parquet")
    full = found["arm"] == "full"
    assert found[full]["perplexity"].notna().all()
    assert found[full]["reason"].isna().all()
    assert (found[~full]["reason"] == REASON).all()
    assert found[~full][["perplexity", "increase", "saved", "difference"]].isna().all(axis=None)
    assert said_of_eviction(found, REPORTED) == [f"Tokens can't be evicted here: {REASON}."]
    assert _finding(found) is None


def test_arms_are_told_in_words() -> None:
    assert [kept(128, sinks) for sinks in (None, 0, 4)] == [
        "everything",
        "the latest 128",
        "the latest 124 and the first 4",
    ]


# --- the figure ---------------------------------------------------------------------------------------------------


def lines(axes: Axes) -> list[Any]:
    """The lines that join points."""
    drawn: list[Any] = list(axes.get_lines())
    return [line for line in drawn if line.get_linestyle() == "-" and len(line.get_xdata())]


def test_the_figure_shows_every_arm_with_the_values_of_the_tables(
    table: pd.DataFrame, evicted: pd.DataFrame, tmp_path: Path
) -> None:
    figure = plot_eviction(evicted, table, "tiny")
    left, middle, right = figure.axes
    for axes, quantity, arms in ((left, "perplexity", list(LOSSES)), (middle, "increase", list(LOSSES)[1:])):
        for arm, line in zip(arms, lines(axes), strict=True):
            rows = evicted[(evicted["arm"] == arm) & (evicted["span"] == "quarter")].sort_values("first_position")
            np.testing.assert_allclose(line.get_ydata(), rows[quantity])
        assert len(axes.collections) == len(arms), "a band for each"
    for arm, line in zip(list(LOSSES)[1:], lines(right), strict=True):
        places, values = line.get_xdata(), line.get_ydata()
        assert np.abs(values[places <= 0]).max() == 0
        assert values[places > 0].mean() == pytest.approx(LOSSES[arm], rel=0.1)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [kept(WINDOW, sinks) for sinks in (None, 0, 4)]
    paths = [tmp_path / f"{name}.svg" for name in ("one", "other")]
    for path in paths:
        save(plot_eviction(evicted, table, "tiny"), path, 40)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_figure_of_a_refused_model_has_the_full_cache_alone() -> None:
    refused = eviction(reason=REASON)
    left, middle, right = plot_eviction(summarize_eviction({"tiny": refused}), refused, "tiny").axes
    assert [len(lines(axes)) for axes in (left, middle, right)] == [1, 0, 0]


# --- the words ----------------------------------------------------------------------------------------------------


def test_a_loss_that_comes_with_the_first_token_is_called_so(evicted: pd.DataFrame) -> None:
    beginning, whole, sinks, study = said_of_eviction(evicted, REPORTED)
    assert beginning.startswith("Nothing is evicted from a window until its 32 tokens are read, and all is as with")
    assert beginning.endswith("the rise comes with the loss of the very first token.")
    assert "6 texts of 128 tokens" in whole
    assert "1.5" in whole
    assert "the latest 28 and the first 4 tokens" in sinks
    assert "above the full cache's" in sinks
    assert study.startswith("Xiao et al. (2024, table 2) report")
    assert "1.48 (Falcon-7B)" in study
    assert study.endswith("within that range.")


def test_no_loss_is_not_called_one() -> None:
    said = said_of_eviction(summarize_eviction({"tiny": eviction(dict.fromkeys(LOSSES, 0.0))}), REPORTED)
    assert "which shows no rise yet" in said[0]
    assert "can't be told from the full cache's" in said[2]
    assert said[3].endswith("outside that range.")


def test_arms_that_differ_before_anything_is_evicted_are_called_so(table: pd.DataFrame) -> None:
    off = table.assign(nll=table["nll"].where((table["arm"] == "full") | (table["position"] != 3), table["nll"] + 0.5))
    said = said_of_eviction(summarize_eviction({"tiny": off}), REPORTED)
    assert "they differ all the same: no token's nll is off by more than 0.5 nats" in said[0]


def test_a_study_without_four_sinks_is_not_held_against_the_paper(table: pd.DataFrame) -> None:
    assert len(said_of_eviction(summarize_eviction({"tiny": table}), {**REPORTED, "sinks": 2})) == 3


def test_the_finding_names_both_losses(evicted: pd.DataFrame) -> None:
    finding = _finding(evicted)
    assert finding is not None
    assert finding.startswith("with a cache of only the latest 32 tokens it predicts text by 1.5")
    assert "with the latest 28 and the first 4 by 0.05" in finding
