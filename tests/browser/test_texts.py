"""Formulas, the glossary's tooltips, marks and the chapters' shape in a real browser."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import TEMPLATES

SECTIONS = ("answers", "evaluation", "generation", "attention", "formulas", "glossary")
BUDGET_MS = 50


def _term(page: Page, section: str) -> str:
    """A selector of the first marked word of a section."""
    selector = f"#{section} a.term >> nth=0"
    expect(page.locator(selector)).to_be_visible()
    return selector


def test_pointing_at_a_term_says_what_it_means_until_the_pointer_leaves(page: Page) -> None:
    word, shown = page.locator(_term(page, "generation")), page.locator("#term")
    expect(shown).to_be_hidden()
    word.hover()
    expect(shown).to_be_visible()
    target = (word.get_attribute("href") or "").removeprefix("#")
    assert shown.text_content() == page.locator(f"#{target} + dd").text_content()
    shown.hover()
    page.wait_for_timeout(400)
    expect(shown).to_be_visible()
    page.locator("h1").hover()
    expect(shown).to_be_hidden()


def test_the_keyboard_shows_a_term_and_escape_takes_it_away(page: Page) -> None:
    word, shown = page.locator(_term(page, "attention")), page.locator("#term")
    word.focus()
    expect(shown).to_be_visible()
    assert word.get_attribute("aria-describedby") == "term"
    page.keyboard.press("Escape")
    expect(shown).to_be_hidden()
    expect(word).to_be_focused()
    assert word.get_attribute("aria-describedby") is None
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    expect(shown).to_be_visible()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == word.get_attribute("href")


def test_each_section_marks_a_term_once_and_leaves_code_links_and_written_text_alone(page: Page) -> None:
    marked = page.evaluate(
        """Array.from(document.querySelectorAll("section"), (section) => [section.id,
           Array.from(section.querySelectorAll("a.term"), (word) => word.hash)])"""
    )
    assert sum(len(found) for _, found in marked) > 50
    for section, found in marked:
        assert len(found) == len(set(found)), section
        assert section not in ("formulas", "glossary") or not found
    assert page.locator(":is(code, h1, h2, h3, summary, .tokens, td, .mark) a.term, a a").count() == 0


def test_marking_terms_is_quick(browser: Browser, report_file: Path) -> None:
    whole = report_file.read_text(encoding="utf-8")
    script = (TEMPLATES / "glossary.js").read_text(encoding="utf-8")
    assert script in whole, "the script is timed apart from others"
    bare = report_file.with_name("bare.html")
    bare.write_text(whole.replace(script, ""), encoding="utf-8")
    context = browser.new_context(offline=True)
    opened, taken = context.new_page(), []
    for _ in range(3):
        opened.goto(bare.as_uri())
        taken.append(
            opened.evaluate(f"() => {{ const start = performance.now(); {script}; return performance.now() - start }}")
        )
        assert opened.locator("a.term").count() > 50
    context.close()
    assert min(taken) < BUDGET_MS


def test_marking_terms_moves_nothing(page: Page) -> None:
    def places() -> list[object]:
        return [page.locator(f"#{name}").bounding_box() for name in ("evaluation", "profiling", "attention")]

    marked = places()
    page.evaluate("document.querySelectorAll('a.term').forEach((one) => one.replaceWith(...one.childNodes))")
    assert places() == marked


def test_without_scripts_the_glossary_is_a_list_and_no_word_is_a_link(browser: Browser, report_file: Path) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    opened = context.new_page()
    opened.goto(report_file.as_uri())
    assert opened.locator("a.term").count() == 0
    assert opened.locator("dl.glossary dt").count() == opened.locator("dl.glossary dd").count() > 30
    context.close()


def test_every_formula_is_drawn_and_its_links_lead_to_it(page: Page) -> None:
    boxes = [one.bounding_box() for one in page.locator("article.formula .math math").all()]
    assert len(boxes) > 15
    assert all(box is not None and box["width"] > 20 and box["height"] > 12 for box in boxes)
    fractions = page.locator("article.formula mfrac").first.bounding_box()
    assert fractions is not None
    assert fractions["height"] > 20, "numerator over denominator, not side by side"
    page.locator('#evaluation a[href="#formula-kl"]').first.click()
    expect(page.locator("#formula-kl")).to_be_in_viewport()


def test_long_formulas_scroll_in_their_boxes_on_a_telephone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = "Array.from(document.querySelectorAll('article.formula .math'), (box) => box.scrollWidth > box.clientWidth)"
    assert any(page.evaluate(wide))


def test_a_tooltip_stays_within_a_narrow_page(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    for word in page.locator("#evaluation a.term").all()[:6]:
        word.focus()
        box = page.locator("#term").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.fixture(params=["light", "dark"])
def themed(request: pytest.FixtureRequest, page: Page) -> Page:
    page.emulate_media(color_scheme=request.param)
    return page


def test_no_violation_of_accessibility_in_texts_marks_formulas_and_tooltips(themed: Page) -> None:
    themed.locator(_term(themed, "generation")).focus()
    context = {"include": [[f"#{name}"] for name in SECTIONS] + [["#term"]]}
    options = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
    found = Axe().run(themed, context=context, options=options)
    assert found.response["violations"] == [], found.generate_report()
