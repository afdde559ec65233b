"""Figures and sentences of caches on few bits: drawn and said as the tables allow."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from inferometer.kv_cache import figures, summary
from inferometer.plotting import COLOURS, save
from inferometer.report import kv_cache as report
from tests.synthetic_kv_cache import POLICIES as MADE_UP
from tests.synthetic_kv_cache import PROMPTS, cells, trace, traces

MODEL = "m"
POLICIES = dict(MADE_UP)
RAW = cells(MODEL, ("fp", "nf4-bnb"))
LENGTHS = summary.lengths(RAW)
TABLE = summary.summarize(RAW, LENGTHS, POLICIES)
PAIRS = summary.pairs(RAW, POLICIES)
FLOAT_WEIGHTS = TABLE[TABLE["scheme"] == "fp"]

PLOTS: dict[str, Callable[[], Figure]] = {
    "accuracy": lambda: figures.plot_accuracy(TABLE, PAIRS, MODEL),
    "bytes": lambda: figures.plot_bytes(LENGTHS, TABLE, MODEL),
    "bits": lambda: figures.plot_bits(traces(), POLICIES),
}


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> None:
    plt.close("all")


@pytest.mark.parametrize("name", PLOTS)
def test_the_same_tables_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    for copy in ("one", "two"):
        save(PLOTS[name](), tmp_path / f"{copy}.svg", 40)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_costs_are_drawn_by_stored_bits_and_pairs_beside_them() -> None:
    left, middle, right = PLOTS["accuracy"]().axes
    assert left.get_yscale() == "log"
    assert left.get_title(loc="left") == "Divergence from the float cache"
    assert middle.get_ylabel() == "percentage points"
    named = [label.get_text() for label in right.get_yticklabels()]
    assert named == ["entropy – static-3", "entropy – random", "random – static-3"]
    assert sorted(text.get_text() for text in left.texts) == ["2 bits", "3 bits", "4 bits"]
    [line] = [own for own in left.lines if own.get_linestyle() == "-" and own.get_color() == COLOURS[0]]
    assert np.asarray(line.get_xdata(), dtype=float) == pytest.approx([2.7, 3.7, 4.7])


def test_bytes_have_points_for_all_policies_and_lines_where_theory_knows() -> None:
    left, right = PLOTS["bytes"]().axes
    assert (left.get_xscale(), left.get_yscale(), right.get_yscale()) == ("log", "log", "linear")
    assert len(left.lines) == 2 * len(POLICIES)
    assert all(np.size(line.get_xdata()) == len(PROMPTS) for line in left.lines)
    assert right.lines[0].get_ydata() == pytest.approx([100.0] * len(PROMPTS)), "the float cache itself"


def test_bits_have_a_panel_for_each_choosing_policy_and_one_of_entropy() -> None:
    titles = [axes.get_title(loc="left") for axes in PLOTS["bits"]().axes]
    assert titles == ["Entropy of what the model expected", "entropy", "random"]


def test_runs_of_bits_cover_a_text_once() -> None:
    bits = trace("entropy")["bits"]
    runs = list(figures._runs(bits))
    assert [width for width, _, count in runs for _ in range(count)] == bits.tolist()
    assert all(one[0] != two[0] for one, two in pairwise(runs))


def test_a_text_with_tokens_in_float_can_be_drawn() -> None:
    sinks = trace("entropy").assign(bits=lambda table: table["bits"].where(table["position"] > 3, 0))
    figure = figures.plot_bits({"entropy": sinks}, POLICIES)
    assert "the model's dtype" in [text.get_text() for text in figure.legends[0].get_texts()]


def _pairs(**bounds: tuple[float, float]) -> pd.DataFrame:
    """The pairs of the policy that goes by entropy, with these intervals of KL divergence."""
    rows = PAIRS[(PAIRS["scheme"] == "fp") & (PAIRS["policy"] == "entropy")].set_index("against")
    for against, (low, high) in bounds.items():
        name = against.replace("_", "-")
        rows.loc[name, ["kl_change_low", "kl_change", "kl_change_high"]] = [low, (low + high) / 2, high]
    return rows.reset_index()


LESS, MORE, EITHER = (-0.2, -0.1), (0.1, 0.2), (-0.1, 0.1)


@pytest.mark.parametrize(
    ("against_random", "against_static", "said", "each"),
    [
        (LESS, LESS, "Yes, on this text", "is better than random and is better than static-3"),
        (LESS, MORE, "Entropy tells something", "is better than random and is worse than static-3"),
        (LESS, EITHER, "Entropy tells something", "is better than random and can't be told apart from static-3"),
        (EITHER, LESS, "Mixing widths pays, but not", "can't be told apart from random and is better than static-3"),
        (MORE, EITHER, "No, not on this text", "is worse than random and can't be told apart from static-3"),
        (EITHER, EITHER, "This text shows no gain", "can't be told apart from random and can't be told apart from"),
    ],
)
def test_the_verdict_is_as_the_intervals_allow(
    against_random: tuple[float, float], against_static: tuple[float, float], said: str, each: str
) -> None:
    answer = report.answer(FLOAT_WEIGHTS, _pairs(random=against_random, static_3=against_static))
    assert answer is not None
    assert answer.startswith(f"Should uncertain tokens get more bits? {said}")
    assert each in answer


def test_there_is_no_verdict_without_pairs() -> None:
    assert report.answer(FLOAT_WEIGHTS, PAIRS.head(0)) is None


def test_a_difference_in_stored_bits_is_said() -> None:
    row = next(PAIRS.assign(effective_bits_change=-0.4).itertuples())
    assert report._against(row).endswith("It stores 0.40 bits less for each number.")
    assert "It stores" not in report._against(next(PAIRS.itertuples()))


def test_costs_are_said_as_their_intervals_allow() -> None:
    row = FLOAT_WEIGHTS[FLOAT_WEIGHTS["policy"] == "static-4"]
    ends = ["nll_change", "nll_change_low", "nll_change_high"]
    for values, said in (
        ([0.01, 0.005, 0.015], "raises the perplexity by 1.01 % [0.50 % to 1.51 %], with"),
        ([-0.01, -0.015, -0.005], "changes the perplexity by −1.00 % [−1.49 % to −0.50 %], with"),
        ([0.01, -0.005, 0.015], "makes no difference to perplexity that this text could tell from chance"),
    ):
        assert report._cost(next(row.assign(**dict(zip(ends, values, strict=True))).itertuples())).startswith(said)


def test_costs_on_top_of_rounded_weights_stand_beside_those_on_float_ones() -> None:
    [said] = report.said_of_combined(TABLE, "nf4-bnb", "fp")
    assert "static-3 0.020 nats [0.018, 0.023] (0.014 under fp)" in said
    assert said.endswith("under fp for static-4, static-3, static-2, entropy, random.")
    same = pd.concat([FLOAT_WEIGHTS, FLOAT_WEIGHTS.assign(scheme="nf4-bnb")])
    [said] = report.said_of_combined(same, "nf4-bnb", "fp")
    assert said.endswith("both roundings add up.")


def test_a_model_without_a_float_cache_or_a_library_says_less() -> None:
    rounded = FLOAT_WEIGHTS[FLOAT_WEIGHTS["bits"].notna() & FLOAT_WEIGHTS["library"].isna()]
    assert report.said_of_bytes(rounded, LENGTHS) == report.said_of_speed(rounded) == []
    assert report.said_of_combined(rounded, "nf4-bnb", "fp") == []
    assert len(report.said_of_cost(rounded)) == 3
    assert report.said_of_library(rounded, {"library": {"seconds": {"long": [1.0, 2.0]}}}) == []


def test_refused_policies_of_one_reason_are_named_together() -> None:
    assert report.said_of_refused(TABLE.assign(reason="no library")[TABLE["scheme"] == "fp"]) == [
        f"Under fp not everything could be measured of {', '.join(POLICIES)}: no library."
    ]


def test_a_librarys_cache_is_held_against_the_study() -> None:
    [said] = report.said_of_library(FLOAT_WEIGHTS, {"library": {"seconds": {"long": [3.0, 4.0]}}})
    assert "The report's text took 1.33 times as long" in said
    assert "takes 1.49 times as long with quanto-4, after 2,048 tokens: our evidence bears that out" in said
    quick = FLOAT_WEIGHTS.assign(decode_ms=FLOAT_WEIGHTS["decode_ms"].where(FLOAT_WEIGHTS["library"].isna(), 1.0))
    [said] = report.said_of_library(quick, {"library": {"seconds": {"long": [3.0, 4.0]}}})
    assert "our evidence contradicts that" in said


def test_a_cache_that_is_faster_is_called_so() -> None:
    others = FLOAT_WEIGHTS["policy"] != "static-4"
    quick = FLOAT_WEIGHTS.assign(decode_ms=FLOAT_WEIGHTS["decode_ms"].where(others, 1.0))
    [said] = report.said_of_speed(quick)
    assert "no cache on few bits is clearly faster than float" in said, "its quartiles reach into those of float"
    [said] = report.said_of_speed(quick.assign(decode_ms_q75=quick["decode_ms_q75"].where(others, 1.0)))
    assert said.endswith("On CPU, faster than float, beyond the quartiles: static-4.")
    [said] = report.said_of_speed(FLOAT_WEIGHTS)
    assert "no cache on few bits is clearly faster than float" in said


def test_a_study_whose_memory_differs_is_not_blamed() -> None:
    arms = {
        "static": {"accuracy": 0.365, "ms": 1.0, "megabytes": 10.0},
        "dynamic": {"accuracy": 0.365, "ms": 1.0, "megabytes": 9.0},
        "dynamic and weights": {"accuracy": 0.36, "ms": 1.0, "megabytes": 8.0},
    }
    library = {
        "study": "A study",
        "prompt_tokens": {"short": 1, "long": 2},
        "seconds": {"short": [1, 2], "long": [3, 4]},
    }
    sizes = {"short": [3.0, 2.0], "long": [2.0, 1.0]}
    library |= {"kv_megabytes": sizes, "peak_megabytes": sizes}
    shape = {"model": "a", "layers": 1, "kv_heads": 1, "head_dim": 1}
    policies = {"study": "It", "items": 200, "arms": arms}
    said = " ".join(report.said_of_studies({**shape, "library": library, "policies": policies}))
    assert "nothing was stored" not in said
    assert "no share of" not in said
