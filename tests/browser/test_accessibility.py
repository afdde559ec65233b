"""Everybody's page: no violation that axe-core finds, and a keyboard alone reaches all that does something."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.conftest import Opener
from tests.browser.test_page import planted

LEVELS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
INTERACTIVE = "a[href], button, summary, [tabindex='0']"


def violations(page: Page, within: str = "html") -> dict[str, list[str]]:
    """What axe-core finds in a part of the page, by rule, with the elements at fault."""
    page.evaluate("() => document.querySelectorAll('main details').forEach((one) => { one.open = true; })")
    found = Axe().run(page, within, options={**LEVELS, "resultTypes": ["violations"]}).response["violations"]
    return {one["id"]: [node["html"][:120] for node in one["nodes"]] for one in found}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_no_violation(theme: str, width: int, opener: Opener, report_file: Path) -> None:
    with opener(report_file, width=width, color_scheme=theme) as page:
        assert violations(page) == {}


def test_violations_would_be_found(opener: Opener, report_file: Path, tmp_path: Path) -> None:
    faults = (
        '<p class="faint">Hardly read</p><style>.faint { color: #999; background: #fff; }</style><img src="data:,">'
    )
    fault = f'<div id="planted">{faults}<button></button></div>'
    with opener(planted(report_file, tmp_path, fault)) as page:
        assert {"color-contrast", "image-alt", "button-name"} <= set(violations(page, "#planted"))


def test_a_keyboard_alone_reaches_everything_and_shows_where_it_is(page: Page) -> None:
    page.evaluate("() => document.querySelectorAll('main details').forEach((one) => { one.open = true; })")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expected = page.evaluate(
        """(interactive) => {
          const all = [...document.querySelectorAll(interactive)].filter((one) => one.checkVisibility());
          all.forEach((one, place) => { one.dataset.place = place; });
          window.reached = [];
          document.addEventListener("focusin", ({ target }) => {
            const { outlineStyle, outlineWidth } = getComputedStyle(target);
            const box = target.getBoundingClientRect();
            const seen = outlineStyle !== "none" && parseFloat(outlineWidth) >= 1 && box.width * box.height > 0;
            window.reached.push([Number(target.dataset.place ?? -1), seen]);
          });
          return all.length;
        }""",
        INTERACTIVE,
    )
    assert expected > 400
    for _ in range(expected + 60):  # the navigation unfolds below the section that is being read
        page.keyboard.press("Tab")
    reached = page.evaluate("window.reached")
    assert {place for place, _ in reached} >= set(range(expected))
    assert all(seen for _, seen in reached)


def test_the_first_stop_skips_to_the_content(page: Page) -> None:
    page.keyboard.press("Tab")
    link = page.locator(".skip")
    assert link.evaluate("one => one === document.activeElement")
    assert link.bounding_box()["y"] >= 0  # type: ignore[index]  # it has a box, since it is focused
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
