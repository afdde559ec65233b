"""The page of a comparison in a real browser, of two runs that differ in everything that it shows."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from inferometer.compare.__main__ import main
from inferometer.evaluation.tables import GAINS, SCHEMES
from inferometer.profiling.tables import PROFILE
from inferometer.report.reproduce import as_text
from inferometer.runs import RUN
from inferometer.tables import read_table, write_table
from tests.browser.conftest import WORD
from tests.synthetic import study

HOSTILE = f'<script>alert(1)</script> " onmouseover=alert(1) {WORD}'


@pytest.fixture(scope="module")
def comparison(report_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about a run and a copy of it with other numbers, another machine and awkward settings."""
    folder = tmp_path_factory.mktemp("comparison")
    other, config = folder / "other <b>", study()
    shutil.copytree(report_file.parent, folder / "one")
    for title, path in (("A study", folder / "one"), (HOSTILE, other)):
        if path == other:
            shutil.copytree(report_file.parent, path)
        (path / "provenance").mkdir(exist_ok=True)
        config["study"]["title"] = title
        (path / "provenance/configuration.yaml").write_text(as_text(config), encoding="utf-8")
    schemes = read_table(SCHEMES, other / SCHEMES.path)
    schemes[["ratio", "ratio_low", "ratio_high"]] *= 9
    schemes["skipped"] = schemes["skipped"].where(schemes["skipped"].isna(), HOSTILE)
    write_table(SCHEMES, schemes[schemes["scheme"] != "w8a8"], other / SCHEMES.path)
    times = read_table(PROFILE, other / PROFILE.path)
    times[[name for name in map(str, times) if name.startswith("latency_ms")]] *= 3
    write_table(PROFILE, times, other / PROFILE.path)
    runs = read_table(RUN, other / "summary/runs.parquet")
    write_table(RUN, runs.assign(device_name=HOSTILE), other / "summary/runs.parquet")
    (other / GAINS.path).unlink()
    assert main([str(folder / "one"), str(other), "-o", str(folder / "page.html")]) == 0
    return folder / "page.html"


@pytest.fixture
def page(browser: Browser, comparison: Path) -> Iterator[Page]:
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("console", lambda message: troubles.append(message.text))
    opened.on(
        "request", lambda request: None if request.url.startswith(("data:", "file:")) else troubles.append(request.url)
    )
    opened.goto(comparison.as_uri())
    yield opened
    context.close()
    assert troubles == []


def test_every_part_is_there_and_hostile_text_is_shown(page: Page) -> None:
    assert page.locator("section").count() == 5
    assert page.locator("#changed tbody tr").count() > 5
    assert page.locator("#plain td", has_text="<script>alert(1)</script>").count() == 1
    assert page.locator("#runs td", has_text="onmouseover=alert(1)").count() == 2
    assert "GAINS (summary/gains.parquet) is only in A." in page.locator("#rows").inner_text()
    assert page.locator("script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.locator("summary").first.click()
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    assert found.response["violations"] == []


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_the_page_never_scrolls_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")
