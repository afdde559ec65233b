"""A page full of hostile text in a real browser: all of it is seen, none of it runs, and nothing is pushed aside."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from inferometer.report.contents import contents
from inferometer.report.page import render
from inferometer.visible import visible
from tests.synthetic import study, write_results
from tests.unit.test_report_hostile import HOSTILE, spoiled

TEMPLATES = Path(__file__).parents[2] / "report"
TEXT = " ".join(HOSTILE)


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    config = study(title=TEXT, attribution=TEXT, licence=TEXT, caveat=TEXT)
    write_results(config, folder / "results")
    context = contents(config, folder / "results", TEMPLATES / "reported.yaml")
    render(TEMPLATES, folder / "page.html", spoiled(context, TEXT))
    return folder / "page.html"


@pytest.fixture
def hostile(browser: Browser, hostile_file: Path) -> Iterator[Page]:
    """The page at the width of a telephone; the test fails on any dialog, request, error or message of the console."""
    context = browser.new_context(offline=True, viewport={"width": 360, "height": 740})
    opened = context.new_page()
    troubles: list[str] = []

    def dismiss(dialog: Any) -> None:
        troubles.append(dialog.message)
        dialog.dismiss()

    opened.on("dialog", dismiss)
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("console", lambda message: troubles.append(message.text))
    opened.on(
        "request",
        lambda request: None if request.url.startswith(("data:", "file:", "blob:")) else troubles.append(request.url),
    )
    opened.goto(hostile_file.as_uri())
    yield opened
    context.close()
    assert troubles == []


def test_hostile_text_is_found_as_it_was_typed(hostile: Page) -> None:
    shown = visible(TEXT).replace("\r\n", "\n")
    assert hostile.evaluate("document.querySelector('h1').textContent") == shown
    assert hostile.evaluate("document.querySelectorAll('main svg, script').length") == 1, "the page's own script"
    cells: list[str] = hostile.evaluate("Array.from(document.querySelectorAll('td'), cell => cell.textContent)")
    assert sum(shown in cell for cell in cells) > 5


def test_the_page_does_not_scroll_sideways_on_a_telephone(hostile: Page) -> None:
    # what scrolls in a region of its own may be as wide as it likes
    hostile.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    width, wide = hostile.evaluate(
        """() => {
            const page = document.documentElement;
            const beyond = element => element.getBoundingClientRect().right > page.clientWidth + 1;
            const wide = Array.from(document.querySelectorAll("body *")).filter(
                element => beyond(element) && !element.closest(".scroll, pre, .math")
            ).map(element => element.tagName + "." + element.className);
            return [page.scrollWidth - page.clientWidth, wide];
        }"""
    )
    assert wide == []
    assert width <= 0


def test_every_figure_is_still_seen(hostile: Page) -> None:
    widths: list[int] = hostile.evaluate(
        "Array.from(document.querySelectorAll('figure img'), image => image.naturalWidth)"
    )
    assert widths
    assert all(widths)


def test_what_is_written_from_right_to_left_leaves_its_neighbours_where_they_are(hostile: Page) -> None:
    """The word behind hostile text stands to its right; the text itself, as it came in, would have turned it."""
    places = hostile.evaluate(
        """texts => {
            const line = document.createElement("p");
            line.style.whiteSpace = "nowrap";
            document.querySelector("main").prepend(line);
            const place = text => {
                line.textContent = `before ${text} behind`;
                const range = document.createRange();
                const left = word => {
                    const start = line.textContent.lastIndexOf(word);
                    range.setStart(line.firstChild, start);
                    range.setEnd(line.firstChild, start + word.length);
                    return range.getBoundingClientRect().left;
                };
                return left("before") < left("own") && left("own") < left("behind");
            };
            const found = texts.map(place);
            line.remove();
            return found;
        }""",
        ["\u202eown", visible("\u202eown"), visible("\u2069\u202c\u202eown 1"), visible("own \u2067"), "own"],
    )
    assert places == [False, True, True, True, True]


def test_control_characters_are_seen_as_numbers(hostile: Page) -> None:
    title: str = hostile.evaluate("document.querySelector('h1').textContent")
    assert r"NUL \x00 ESC \x1b[31m" in title
    assert r"half a pair \ud83d" in title
