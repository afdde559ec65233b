"""Tables in a real browser: sorted by mouse and by keyboard, copied, and kept as CSV."""

import csv
import random
from pathlib import Path

from playwright.sync_api import Locator, Page

from tests.browser.conftest import Opener

# What a column may hold, in ascending order; rows that share a place are equal as numbers.
ORDERED = (
    "−∞",
    "−8.5·10⁷",
    "−1,024",
    "−0.3 %",
    "0",
    "1.2·10⁻⁵",
    "[0.5, 0.7]",
    "5.0 s",
    "100 % [90 %, 100 %]",
    "2 min 3 s",
    "415 [333, 518]",
    "1,024",
    "8.5·10⁷",
    "∞",
    "=cmd()",
    "float32",
    "layer 2",
    "layer 10",
    "w4a16",
    "w8a8",
    "–",
)
WORDS = ORDERED.index("=cmd()")


def _table(tmp_path: Path, opener_file: Path, cells: list[str]) -> Path:
    """A copy of the page with one table more, its rows numbered as they were put."""
    rows = "".join(f"<tr><td>{place}</td><td>{text}</td></tr>" for place, text in enumerate(cells))
    box = '<div class="scroll" id="planted" tabindex="0" role="region" aria-label="Planted">'
    table = f"{box}<table><thead><tr><th>place</th><th>mixed</th></tr></thead><tbody>{rows}</tbody></table></div>"
    copy = tmp_path / "table.html"
    copy.write_text(opener_file.read_text(encoding="utf-8").replace("</main>", f"{table}</main>"), encoding="utf-8")
    return copy


def _column(page: Page, box: str, column: int) -> list[str]:
    return page.locator(f"{box} tbody tr td:nth-child({column})").all_inner_texts()


def _tools(page: Page, box: str) -> Locator:
    return page.locator(f".tools:has(+ {box})")


def test_a_column_of_all_kinds_is_sorted_up_down_and_back(opener: Opener, report_file: Path, tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(ORDERED, len(ORDERED))
    with opener(_table(tmp_path, report_file, shuffled)) as page:
        head = page.locator("#planted th:nth-child(2)")
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert _column(page, "#planted", 2) == list(ORDERED)
        head.get_by_role("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        numbers, words = list(ORDERED[:WORDS]), list(ORDERED[WORDS:-1])
        assert _column(page, "#planted", 2) == [*reversed(numbers), *reversed(words), "–"], "nothing stays last"
        page.keyboard.press("Space")
        assert head.get_attribute("aria-sort") is None
        assert _column(page, "#planted", 2) == shuffled, "as it was"


def test_equal_rows_keep_their_order_and_one_column_at_a_time_is_marked(
    opener: Opener, report_file: Path, tmp_path: Path
) -> None:
    cells = [["7", "–", "7", "3", "3 "][place % 5] for place in range(15)]
    with opener(_table(tmp_path, report_file, cells)) as page:
        first, second = page.locator("#planted th").all()
        second.get_by_role("button").click()
        threes, sevens, none = ([place for place in range(15) if place % 5 in kind] for kind in ((3, 4), (0, 2), (1,)))
        assert _column(page, "#planted", 1) == [str(place) for place in threes + sevens + none]
        first.get_by_role("button").click()
        assert second.get_attribute("aria-sort") is None
        assert page.locator("#planted [aria-sort]").count() == 1
        second.get_by_role("button").click()
        assert _column(page, "#planted", 1) == [str(place) for place in threes + sevens + none], "stable"


def test_a_row_that_could_not_be_run_stays_below_those_with_numbers(page: Page) -> None:
    box = "[id='table-evaluation-all-schemes']"
    button = page.locator(f"{box} th:nth-child(2)").get_by_role("button")
    values = []
    for _ in range(2):
        button.click()
        *numbers, last = _column(page, box, 2)
        assert last.startswith("could not be run")
        values.append([float(text.split()[0].replace(",", "")) for text in numbers])
    assert values[0] == sorted(values[0])
    assert values[1] == sorted(values[0], reverse=True)
    assert values[0][0] < values[0][-1]


def _cells(page: Page, box: str) -> list[list[str]]:
    """The table as it is shown, with the cells that a wide one covers."""
    found: list[list[str]] = page.locator(f"{box} tr").evaluate_all(
        """rows => rows.map((row) => [...row.cells].flatMap((cell) =>
             [cell.innerText.replaceAll(/[\\u00a0↕↑↓]/g, " ").split(/\\s+/).join(" ").trim(),
              ...Array(cell.colSpan - 1).fill("")]))"""
    )
    return found


def _plain(text: str) -> str:
    """A cell as a program reads it, without the spaces that may stand between its parts."""
    if text == "–":
        return ""
    bare = text.replace("−", "-").replace(",", "")
    try:
        float(bare)
    except ValueError:
        return "".join(text.split())
    return bare


def _joined(rows: list[list[str]]) -> list[list[str]]:
    return [["".join(text.split()) for text in row] for row in rows]


def test_what_is_kept_as_csv_is_what_is_shown(page: Page, tmp_path: Path) -> None:
    box = "[id='table-evaluation-all-schemes']"
    page.locator(f"{box} th:nth-child(2)").get_by_role("button").click()
    with page.expect_download() as started:
        _tools(page, box).get_by_role("button", name="CSV").click()
    assert started.value.suggested_filename == "table-evaluation-all-schemes.csv"
    started.value.save_as(tmp_path / "kept.csv")
    with (tmp_path / "kept.csv").open(encoding="utf-8", newline="") as file:
        kept = list(csv.reader(file))
    assert len({len(row) for row in kept}) == 1
    assert _joined(kept) == [[_plain(text) for text in row] for row in _cells(page, box)]


def test_no_text_passes_for_a_formula_and_quotes_stay_in_their_cells(
    opener: Opener, report_file: Path, tmp_path: Path
) -> None:
    cells = ["=cmd()", "+1+1", "@sum", "-2+3", 'say "a, b"', "−1,024.5", "−"]
    with opener(_table(tmp_path, report_file, cells)) as page:
        with page.expect_download() as started:
            _tools(page, "#planted").get_by_role("button", name="CSV").click()
        started.value.save_as(tmp_path / "kept.csv")
    with (tmp_path / "kept.csv").open(encoding="utf-8", newline="") as file:
        kept = [row[1] for row in csv.reader(file)][1:]
    assert kept == ["'=cmd()", "'+1+1", "'@sum", "'-2+3", 'say "a, b"', "-1024.5", "−"]


def test_a_table_can_be_copied(opener: Opener, report_file: Path) -> None:
    with opener(report_file, permissions=["clipboard-read", "clipboard-write"]) as page:
        box = "[id='table-evaluation-what-the-schemes-are']"
        button = _tools(page, box).get_by_role("button", name="Copy")
        button.click()
        page.wait_for_function("document.querySelector('.tools').ownerDocument.body.innerText.includes('Copied')")
        copied = page.evaluate("navigator.clipboard.readText()")
        rows = [line.split("\t") for line in copied.removesuffix("\n").split("\n")]
        assert _joined(rows) == [[_plain(text) for text in row] for row in _cells(page, box)]


def test_a_table_that_cannot_be_copied_is_selected(page: Page) -> None:
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed')); }")
    box = "[id='table-evaluation-what-the-schemes-are']"
    _tools(page, box).get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Selected: press Ctrl+C").wait_for()
    assert "per channel" in page.evaluate("getSelection().toString()")


def test_a_long_table_shows_its_first_rows_until_asked(opener: Opener, report_file: Path, tmp_path: Path) -> None:
    with opener(_table(tmp_path, report_file, [str(number) for number in range(30)])) as page:
        rows = page.locator("#planted tbody tr")
        button = _tools(page, "#planted").get_by_role("button", name="rows")
        assert [row.is_visible() for row in rows.all()] == [True] * 12 + [False] * 18
        button.click()
        assert all(row.is_visible() for row in rows.all())
        button.click()
        assert not rows.last.is_visible()
        page.emulate_media(media="print")
        assert all(row.is_visible() for row in rows.all()), "paper has room"


def test_every_table_has_its_tools(page: Page) -> None:
    assert page.locator("main .scroll").count() == page.locator("main table").count() > 30
    assert page.locator("main .tools + .scroll").count() == page.locator("main .scroll").count()
