"""The decision in a real browser: every verdict against an oracle, and made-up tables with the awkward cases."""

import itertools
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from inferometer.evaluation.schemes_summary import pareto
from inferometer.evaluation.tables import SCHEMES
from inferometer.kv_cache.tables import KV_CACHE
from inferometer.profiling.tables import PROFILE
from inferometer.report.decision import QUANTITIES, Candidate, Decision, Known, decision, fronts
from inferometer.report.page import render
from inferometer.tables import read_table
from tests.browser.conftest import TEMPLATES

MOST = {quantity.key for quantity in QUANTITIES if quantity.better == "most"}
NAMES = {quantity.key: quantity.name for quantity in QUANTITIES}
SET = """([limits, goal]) => {
  const panel = document.querySelector("#decision .limits");
  panel.querySelectorAll("[data-limit]").forEach((field) => (field.value = limits[field.dataset.limit] ?? ""));
  panel.querySelector("[data-goal]").value = goal;
  panel.dispatchEvent(new Event("input"));
  const rows = [...document.querySelectorAll("#decision tbody tr")];
  return [
    rows.map((row) => [row.dataset.name, row.dataset.verdict, row.querySelector("[data-status]").textContent]),
    panel.querySelector(".verdict").textContent,
  ];
}"""

Limits = Mapping[str, float]
Verdicts = dict[str, tuple[str, str]]


def decide(page: Page, limits: Limits, goal: str = "ratio") -> tuple[Verdicts, str]:
    """Set the fields as a reader would; each row's verdict with what its cell says, and the sentence."""
    rows, sentence = page.evaluate(SET, [{key: str(value) for key, value in limits.items()}, goal])
    return {name: (verdict, text) for name, verdict, text in rows}, sentence


def candidates(page: Page) -> pd.DataFrame:
    """The table as a reader without the script has it: one row for each candidate, nothing where nothing is known."""
    rows = page.evaluate("() => [...document.querySelectorAll('#decision tbody tr')].map((row) => ({...row.dataset}))")
    table = pd.DataFrame(rows).set_index("name").drop(columns="verdict", errors="ignore")
    numeric: pd.DataFrame = table.apply(pd.to_numeric)
    return numeric


def expected(table: pd.DataFrame, limits: Limits, goal: str) -> tuple[pd.Series, list[str]]:
    """The same verdicts by vectors of pandas instead of rows, and the best."""
    grave = pd.Series(0, index=table.index)
    for key, limit in limits.items():
        if key not in table:
            own = pd.Series(2, index=table.index)
        else:
            sign = -1 if key in MOST else 1
            ends = pd.concat([sign * table[f"{key}Low"], sign * table[f"{key}High"]], axis=1)
            own = 3 * (ends.min(axis=1) > sign * limit) + 1 * (
                (ends.min(axis=1) <= sign * limit) & (ends.max(axis=1) > sign * limit)
            )
            own = own.where(table[key].notna(), 2)
        grave = pd.concat([grave, own], axis=1).max(axis=1)
    words = grave.map({0: "fits", 1: "may", 2: "unknown", 3: "no"})
    fitting = table[(words == "fits") & table[goal].notna()][goal]
    top = fitting.max() if goal in MOST else fitting.min()
    return words, list(fitting[fitting == top].index)


def grid(table: pd.DataFrame) -> Iterator[tuple[dict[str, float], str]]:
    """Limits at, between and beyond the values and interval ends of every quantity, alone and in pairs."""
    points: dict[str, list[float]] = {}
    for quantity in QUANTITIES:
        if quantity.key in table:
            ends = table[[quantity.key, f"{quantity.key}Low", f"{quantity.key}High"]].melt()["value"].dropna().unique()
            values = sorted(map(float, ends))[:: max(1, len(ends) // 5)]
            points[quantity.key] = [values[0] - 1, *values, (values[0] + values[-1]) / 2, values[-1] + 1]
    goals = itertools.cycle(points)
    yield {}, "ratio"
    for key, values in points.items():
        for value in values:
            yield {key: value}, next(goals)
    for one, other in itertools.combinations(points, 2):
        for value, second in itertools.product(points[one][1::2], points[other][1::2]):
            yield {one: value, other: second}, next(goals)


def test_every_verdict_is_that_of_the_oracle(page: Page) -> None:
    table = candidates(page)
    seen, cases = set(), list(grid(table))
    assert len(cases) > 100
    for limits, goal in cases:
        verdicts, sentence = decide(page, limits, goal)
        words, best = expected(table, limits, goal)
        assert [name for name, (verdict, _) in verdicts.items() if verdict == "best"] == best, (limits, goal)
        shown = {name: "fits" if verdict == "best" else verdict for name, (verdict, _) in verdicts.items()}
        assert shown == words.to_dict(), (limits, goal)
        counts = words.value_counts()
        assert sentence.startswith(f"Of {len(table)} candidates {counts.get('fits', 0)} fit, ")
        assert (f"is {', '.join(best)}: " in sentence) == bool(best)
        seen |= set(words)
    assert seen == {"fits", "may", "unknown", "no"}


def test_candidates_are_what_the_tables_say(page: Page, report_file: Path) -> None:
    schemes = read_table(SCHEMES, report_file.parent / SCHEMES.path).dropna(subset="ratio").set_index("scheme")
    table = candidates(page)
    assert set(schemes.index) <= set(table.index)
    shown = table.loc[schemes.index]
    assert np.allclose(shown["weights"], schemes["weights_bytes"] / 1e6)
    assert np.allclose(shown[["ratioLow", "ratioHigh"]], schemes[["ratio_low", "ratio_high"]])
    assert np.allclose(shown["change"], 100 * schemes["accuracy_change"])
    assert shown[schemes["engine"] == "simulated"][["prefill", "decode", "long"]].isna().all(axis=None)
    rounded = [name for name in table.index if "cache" in name]
    assert rounded
    assert (table.loc[rounded, "cache"] < table.loc["fp", "cache"]).all()


def test_the_table_says_what_is_not_known_and_why(page: Page) -> None:
    row = page.locator("#decision tbody tr", has=page.locator("td", has_text="w8a8-smooth")).first
    assert row.locator("[data-of=decode]").text_content() == "simulated: not known"
    page.get_by_label("writing, at least").fill("1")
    assert "can't be told: writing" in (row.locator("[data-status]").text_content() or "")


def test_a_reader_reaches_and_sets_all_by_keyboard(page: Page) -> None:
    page.locator("#decision").evaluate("(section) => section.querySelector('[data-limit]').focus()")
    page.keyboard.type("0.001")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.hasAttribute('data-goal')"):
            break
    verdict = page.locator("#decision .verdict")
    assert "None fits." in (verdict.text_content() or "")
    assert verdict.get_attribute("aria-live") == "polite"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert "Best (lowest perplexity ratio) is fp" in (verdict.text_content() or "")
    assert page.locator("#decision [data-limit]").first.input_value() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.get_by_label("weights, at most").fill("3")
    found = Axe().run(page, context="#decision", options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    assert found.response["violations"] == []


def test_without_a_script_the_table_reads_by_itself(browser: Browser, report_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    opened = context.new_page()
    opened.goto(report_file.as_uri())
    assert not opened.locator("#decision .limits").is_visible()
    assert not opened.locator("#decision [data-status]").first.is_visible()
    assert opened.locator("#decision tbody td", has_text="front").first.is_visible()
    context.close()


# --- tables made up for one case each ----------------------------------------------------------------------------


def exact(value: float) -> Known:
    return Known(value, value, value)


def made_up(
    browser: Browser, folder: Path, known: Mapping[str, Mapping[str, Known]], models: tuple[str, ...] = ("m",)
) -> Page:
    """A page with nothing but the decision among these candidates, each of every model."""
    templates = folder / "templates"
    templates.mkdir()
    for name in ("decision.html.j2", "decision.js", "style.css", "decision.css"):
        (templates / name).symlink_to(TEMPLATES / name)
    (templates / "page.html.j2").write_text(
        '<!DOCTYPE html><title>t</title>{% include "decision.html.j2" %}<script>{{ script | safe }}</script>',
        encoding="utf-8",
    )
    rows = [
        Candidate(model, name, simulated=False, front="", known=own) for model in models for name, own in known.items()
    ]
    shown = tuple(quantity for quantity in QUANTITIES if any(quantity.key in own for own in known.values()))
    ranges = {quantity.key: (0.0, 1.0) for quantity in shown}
    data = Decision(rows, shown, ranges, {}, {})
    render(templates, folder / "page.html", {"decision": data, "measured_models": list(models)})
    opened = browser.new_page()
    opened.goto((folder / "page.html").as_uri())
    return opened


def test_a_limit_at_the_end_of_an_interval_is_kept_and_one_within_is_open(browser: Browser, tmp_path: Path) -> None:
    page = made_up(browser, tmp_path, {"a": {"ratio": Known(1.5, 1.25, 1.75), "change": Known(-2, -3, -1)}})
    for limits, verdict in (
        ({"ratio": 1.75}, "best"),
        ({"ratio": 1.74}, "may"),
        ({"ratio": 1.25}, "may"),
        ({"ratio": 1.24}, "no"),
        ({"change": -3}, "best"),
        ({"change": -2.9}, "may"),
        ({"change": -1}, "may"),
        ({"change": -0.9}, "no"),
        ({"ratio": 1.5, "change": -0.5}, "no"),
    ):
        assert decide(page, limits)[0]["a"][0] == verdict, limits
    assert decide(page, {"ratio": 1.5, "change": -2})[0]["a"][1] == "may fit: perplexity ratio, change of accuracy"
    assert "None fits for certain. May fit: a." in decide(page, {"ratio": 1.5})[1]


def test_equal_ones_are_best_together_and_overlapping_ones_are_named(browser: Browser, tmp_path: Path) -> None:
    page = made_up(
        browser,
        tmp_path,
        {
            "a": {"ratio": Known(1.0, 0.9, 1.1), "weights": exact(3)},
            "b": {"ratio": Known(1.0, 0.95, 1.05), "weights": exact(2)},
            "near": {"ratio": Known(1.2, 1.1, 1.3), "weights": exact(2)},
            "far": {"ratio": Known(2.0, 1.9, 2.1), "weights": exact(1)},
        },
    )
    verdicts, sentence = decide(page, {})
    assert {name for name, (verdict, _) in verdicts.items() if verdict == "best"} == {"a", "b"}
    assert "is a, b: " in sentence
    assert sentence.endswith("The study can't tell whether it is better than near.")
    assert verdicts["near"][1] == "fits, alike"
    assert "is far: 1.00." in decide(page, {}, "weights")[1]
    assert "is b, near: 2.00." in decide(page, {"ratio": 1.5}, "weights")[1]


def test_what_may_fit_is_named_where_it_may_be_as_good(browser: Browser, tmp_path: Path) -> None:
    page = made_up(
        browser,
        tmp_path,
        {
            "sure": {"decode": Known(20, 19, 21), "ratio": exact(1)},
            "open": {"decode": Known(22, 15, 30), "ratio": exact(1)},
            "slow": {"decode": Known(17.5, 17, 18), "ratio": exact(1)},
            "simulated": {"ratio": exact(1)},
        },
    )
    verdicts, sentence = decide(page, {"decode": 17.2}, "decode")
    assert {name: verdict for name, (verdict, _) in verdicts.items()} == {
        "sure": "best",
        "open": "may",
        "slow": "may",
        "simulated": "unknown",
    }
    assert sentence.endswith("As good or better, should they fit: open.")


def test_schemes_of_several_models_are_told_apart(browser: Browser, tmp_path: Path) -> None:
    page = made_up(browser, tmp_path, {"<b>a": {"ratio": exact(1)}}, models=("m", "n"))
    verdicts, sentence = decide(page, {})
    assert set(verdicts) == {"<b>a of m", "<b>a of n"}
    assert "is <b>a of m, <b>a of n: 1.0000." in sentence


def test_a_study_that_measured_nothing_says_so(browser: Browser, tmp_path: Path) -> None:
    page = made_up(browser, tmp_path, {})
    assert "nothing to decide among" in page.locator("#decision").inner_text()
    assert page.locator("#decision table, #decision input").count() == 0


def test_a_chapter_that_was_left_out_leaves_its_quantities_out(report_file: Path, tmp_path: Path) -> None:
    shutil.copytree(report_file.parent, tmp_path / "results")
    for table in (PROFILE, KV_CACHE):
        (tmp_path / "results" / table.path).unlink()
    found = decision(tmp_path / "results", read_table(SCHEMES, tmp_path / "results" / SCHEMES.path), "fp")
    assert [quantity.key for quantity in found.quantities] == ["weights", "ratio", "change", "accuracy"]
    assert all("cache" not in candidate.name for candidate in found.candidates)


def test_a_front_is_marked_only_where_the_intervals_allow() -> None:
    rows = [("a", 1, 2.0, 1.9, 2.1), ("b", 2, 1.5, 1.4, 1.6), ("c", 3, 1.6, 1.5, 1.7), ("d", 3, 1.8, 1.7, 1.9)]
    table = pd.DataFrame(rows, columns=["scheme", "weights_bytes", "ratio", "ratio_low", "ratio_high"])
    assert fronts(table) == {"a": "front", "b": "front", "c": "not ruled out", "d": ""}
    assert [name for name, place in fronts(table).items() if place == "front"] == pareto(table)
