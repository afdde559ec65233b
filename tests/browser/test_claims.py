"""The table of claims in a browser: its filter, its links, and what remains without a script and on paper."""

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from inferometer.visible import visible
from tests.synthetic_claims import ENTRIES, HOSTILE

ROWS = ".claims-table tbody tr"
SHOWN = f"{ROWS}:visible"


def test_a_verdict_and_a_chapter_are_filtered_and_the_count_is_announced(page: Page) -> None:
    said = page.locator(".claims-filter output")
    expect(said).to_have_attribute("aria-live", "polite")
    expect(said).to_have_text(f"{len(ENTRIES)} of {len(ENTRIES)} claims")
    page.select_option("select[name=verdict]", "supported")
    expect(page.locator(SHOWN)).to_have_count(2)
    page.select_option("select[name=chapter]", "capacity")
    expect(page.locator(SHOWN)).to_have_count(1)
    expect(said).to_have_text(f"1 of {len(ENTRIES)} claims")
    page.get_by_role("button", name="Show all").click()
    expect(page.locator(SHOWN)).to_have_count(len(ENTRIES))
    expect(said).to_have_text(f"{len(ENTRIES)} of {len(ENTRIES)} claims")


def test_the_filter_works_by_keyboard(page: Page) -> None:
    page.locator("select[name=verdict]").focus()
    page.keyboard.type("contra")
    expect(page.locator(SHOWN)).to_have_count(1)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the button that shows all
    expect(page.locator(SHOWN)).to_have_count(len(ENTRIES))


def test_a_link_to_a_claim_shows_its_row_even_if_it_was_filtered_out(page: Page) -> None:
    page.select_option("select[name=verdict]", "supported")
    row = page.locator("#claim-broken")
    expect(row).to_be_hidden()
    page.evaluate("location.hash = '#claim-broken'")
    expect(row).to_be_in_viewport()
    expect(page.locator(SHOWN)).to_have_count(len(ENTRIES))


def test_evidence_opens_with_rule_reason_and_query(page: Page) -> None:
    row = page.locator("#claim-collapsed")
    expect(row.locator("pre")).to_be_hidden()
    row.locator("summary").click()
    expect(row.locator("pre")).to_contain_text("FROM summary.schemes")
    expect(row.locator("dl")).to_contain_text("less than 1.1 times")
    expect(row.locator("dl")).to_contain_text("The whole interval misses the rule.")
    expect(row.locator(".verdict")).to_contain_text("✗ contradicted")


def test_hostile_claims_are_shown_and_never_run(page: Page) -> None:
    row = page.locator("#claim-hostile")
    expect(row.locator("td").first).to_contain_text(visible(HOSTILE))
    row.locator("summary").click()
    expect(row.locator("pre")).to_contain_text("<script>alert(1)</script>")
    assert page.title() != "run"


def test_paper_shows_all_rows_and_no_filter(page: Page) -> None:
    page.select_option("select[name=verdict]", "supported")
    page.emulate_media(media="print")
    expect(page.locator(SHOWN)).to_have_count(len(ENTRIES))
    expect(page.locator(".claims-filter")).to_be_hidden()


def test_without_a_script_all_rows_are_there_and_no_filter(browser: Browser, report_file: Path) -> None:
    with browser.new_context(offline=True, java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto(report_file.as_uri())
        expect(plain.locator(SHOWN)).to_have_count(len(ENTRIES))
        expect(plain.locator(".claims-filter")).to_be_hidden()
        plain.locator("#claim-collapsed summary").click()
        expect(plain.locator("#claim-collapsed pre")).to_be_visible()
