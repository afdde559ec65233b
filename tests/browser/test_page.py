"""The page in a real browser: it renders from disk without a network, at any width, in both themes, and prints."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Page

from inferometer.report.contents import contents
from inferometer.report.embed import data_uri
from inferometer.report.page import render
from inferometer.visible import visible
from tests.browser.conftest import HOSTILE, TEMPLATES, WORD, Opener
from tests.synthetic import (
    ATTENTION_FIGURES,
    CACHE_FIGURES,
    GENERATION_FIGURES,
    MEASURED,
    PROFILE_FIGURES,
    SECTIONS,
    study,
)

WIDTHS = (360, 414, 768, 1024, 1280, 1920)
FIGURES = 15 + PROFILE_FIGURES + CACHE_FIGURES + GENERATION_FIGURES + ATTENTION_FIGURES
SIDEWAYS = """() => {
  const all = document.documentElement;
  const wide = [...document.querySelectorAll("body *")].filter((element) =>
    element.getBoundingClientRect().right > all.clientWidth + 1 && !element.closest(".scroll:not(.fits), pre, .math"));
  return { beyond: all.scrollWidth - all.clientWidth, wide: wide.map((one) => `${one.localName}.${one.className}`) };
}"""


def planted(report: Path, tmp_path: Path, fault: str) -> Path:
    """A copy of the page with a fault in it, to see that the check which must find it does."""
    copy = tmp_path / "planted.html"
    text = report.read_text(encoding="utf-8")
    assert text.count("</main>") == 1
    copy.write_text(text.replace("</main>", f"{fault}</main>"), encoding="utf-8")
    return copy


# --- whole, and nothing fetched ----------------------------------------------------------------------------------


def test_the_page_is_whole_and_hostile_texts_are_only_texts(page: Page) -> None:
    assert page.evaluate("document.compatMode") == "CSS1Compat", "standards mode"
    assert tuple(page.eval_on_selector_all("section", "all => all.map(one => one.id)")) == SECTIONS
    assert page.locator("h1").text_content() == visible(f"<b>Bold</b> & {HOSTILE}")
    assert visible(HOSTILE) in str(page.locator("#sources").text_content())
    assert page.locator("main script, h1 b, img[onerror]").count() == 0


@pytest.mark.parametrize(
    "fault",
    [
        '<img src="http://127.0.0.1:9/outside.png" alt="">',
        "<script>console.log('a message')</script>",
        "<script>undeclared()</script>",
    ],
    ids=["a request", "a message", "an error"],
)
def test_what_the_page_must_not_do_would_be_noticed(
    fault: str, opener: Opener, report_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError), opener(planted(report_file, tmp_path, fault)):
        pass


def test_every_figure_is_seen(page: Page) -> None:
    sizes = page.eval_on_selector_all("main img", "all => all.map(one => [one.naturalWidth, one.naturalHeight])")
    assert len(sizes) == FIGURES
    assert all(width > 0 and height > 0 for width, height in sizes)
    seen = page.eval_on_selector_all(
        "main img", "all => all.filter(one => one.checkVisibility()).map(one => one.width)"
    )
    assert len(seen) > FIGURES / 2
    assert all(200 < width <= 1280 for width in seen)


def test_a_figure_in_fewer_bytes_is_the_same_picture(page: Page, report_file: Path) -> None:
    """Drawn by the browser from the file and from the page, pixel by pixel."""
    drawn = """async ([one, other]) => {
      const pixels = [];
      for (const address of [one, other]) {
        const image = new Image();
        image.src = address;
        await image.decode();
        const canvas = new OffscreenCanvas(2 * image.width, 2 * image.height).getContext("2d");
        canvas.drawImage(image, 0, 0, canvas.canvas.width, canvas.canvas.height);
        pixels.push(canvas.getImageData(0, 0, canvas.canvas.width, canvas.canvas.height).data);
      }
      const [before, after] = pixels;
      if (before.length !== after.length) return null;
      const off = Array.from(before, (value, at) => Math.abs(value - after[at]));
      return [Math.max(...new Set(off)), off.reduce((sum, one) => sum + one, 0) / off.length, new Set(before).size];
    }"""
    file = report_file.parent / "summary/pareto.svg"
    percent = file.read_text(encoding="utf-8").replace("%", "%25").replace("#", "%23")
    found = page.evaluate(drawn, [f"data:image/svg+xml,{percent}", data_uri(file)])
    assert found is not None, "as large as before"
    most, mean, values = found
    assert values > 50, "there is something to see"
    assert most <= 64, "one of the four lines on which the browser samples a pixel"
    assert mean < 0.05, "of 255"


# --- finding one's way -------------------------------------------------------------------------------------------


def test_every_link_leads_to_a_place_on_the_page_and_every_name_is_given_once(page: Page) -> None:
    targets = page.eval_on_selector_all("a", "all => all.map(one => one.getAttribute('href'))")
    names = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(names) == len(set(names))
    assert len(targets) > 100
    assert {target.removeprefix("#") for target in targets} <= set(names)


def test_each_heading_figure_and_table_has_a_link_to_itself(page: Page) -> None:
    lacking = page.evaluate("""() => [...document.querySelectorAll("main h2, main h3, main figure, main .scroll")]
      .filter((one) => {
        const id = one.localName === "h2" ? one.closest("section").id : one.id;
        return !id || !document.querySelector(`main a[href="#${CSS.escape(id)}"]`);
      }).map((one) => one.outerHTML.slice(0, 80))""")
    assert lacking == []
    for name in ("figure-summary-pareto", f"figure-{MEASURED}-kv_cache-bytes", "table-evaluation-all-schemes"):
        assert page.locator(f"[id='{name}']").count() == 1, "names that a reader would guess"


def test_the_navigation_follows_the_reader(page: Page) -> None:
    for name in ("evaluation", "kv_cache", "reproduce"):
        page.evaluate(
            "name => document.getElementById(name).scrollIntoView({ block: 'start', behavior: 'instant' })", name
        )
        page.wait_for_function(
            "name => document.querySelector(`nav a[href='#${name}']`).hasAttribute('aria-current')", arg=name
        )
        current = page.eval_on_selector_all(
            "nav > details > ul > li > a[aria-current]", "all => all.map(one => one.hash)"
        )
        assert current == [f"#{name}"]


@pytest.mark.parametrize("width", [360, 1280])
def test_a_deep_link_opens_the_page_at_its_place(width: int, opener: Opener, report_file: Path) -> None:
    with opener(report_file, width=width) as page:
        for name in ("attention", f"figure-{MEASURED}-attention-sinks", "table-capacity-gpus"):
            page.goto("about:blank")
            page.goto(f"{report_file.as_uri()}#{name}")
            page.wait_for_timeout(200)
            top = page.locator(f"[id='{name}']").evaluate("one => one.getBoundingClientRect().top")
            assert 0 <= top < 120, name


def test_the_navigation_of_a_narrow_screen_folds_and_comes_back(opener: Opener, report_file: Path) -> None:
    with opener(report_file, width=360) as page:
        assert not page.locator("nav ul").first.is_visible()
        page.locator("nav summary").click()
        page.locator("nav a[href='#attention']").click()
        assert not page.locator("nav ul").first.is_visible()
        page.wait_for_function("Math.abs(document.getElementById('attention').getBoundingClientRect().top) < 200")
        page.set_viewport_size({"width": 1280, "height": 900})
        page.locator("nav ul").first.wait_for(state="visible")


def test_two_models_have_headings_and_tables_of_their_own(opener: Opener, report_of_two_models: Path) -> None:
    with opener(report_of_two_models) as page:
        for section in ("evaluation", "smoothing", "rotation", "kv_cache"):
            said_of = page.locator(f"#{section} .shows p strong").all_inner_texts()
            assert said_of == [MEASURED, "other-llama"], "sentences say whom they are about"
        names = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
        assert len(names) == len(set(names))
        listed = page.eval_on_selector_all("nav li li a", "all => all.map(one => one.textContent)")
        for model in (MEASURED, "other-llama"):
            assert sum(text.startswith(model) for text in listed) >= 15, "the navigation leads to each"
        assert page.evaluate(SIDEWAYS) == {"beyond": 0, "wide": []}


# --- the reader's choices ----------------------------------------------------------------------------------------


def _paper(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 24, 31)"


@pytest.mark.parametrize(("system", "first", "second"), [("light", LIGHT, DARK), ("dark", DARK, LIGHT)])
def test_the_theme_is_the_systems_until_the_reader_chooses(
    system: str, first: str, second: str, opener: Opener, report_file: Path
) -> None:
    with opener(report_file, color_scheme=system) as page:
        assert _paper(page) == first
        button = page.get_by_role("button", name="Dark")
        assert button.get_attribute("aria-pressed") == str(first == DARK).lower()
        button.click()
        assert _paper(page) == second
        page.reload()
        assert _paper(page) == second, "remembered"
        assert button.get_attribute("aria-pressed") == str(second == DARK).lower()
        button.click()
        assert _paper(page) == first
        page.reload()
        page.emulate_media(color_scheme="light" if system == "dark" else "dark")
        assert _paper(page) == second, "who takes the choice back follows the system again"


def test_the_theme_works_where_nothing_may_be_remembered(opener: Opener, report_file: Path) -> None:
    refusing = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no'); } })"
    with opener(report_file) as page:
        page.add_init_script(refusing)
        page.reload()
        page.get_by_role("button", name="Dark").click()
        assert _paper(page) == DARK


def test_a_figure_opens_large_and_gives_the_focus_back(page: Page) -> None:
    figure = page.locator("[id='figure-summary-pareto']")
    button = figure.get_by_role("button", name="Enlarge")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible()
    large = dialog.locator("img")
    assert large.get_attribute("alt") == figure.locator("img").get_attribute("alt")
    assert large.evaluate("one => one.naturalWidth") > 0
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert button.evaluate("one => one === document.activeElement")


def test_a_figure_can_be_kept_as_a_file(page: Page, tmp_path: Path) -> None:
    with page.expect_download() as started:
        page.locator("[id='figure-summary-pareto']").get_by_role("button", name="Download").click()
    assert started.value.suggested_filename == "figure-summary-pareto.svg"
    started.value.save_as(tmp_path / "kept.svg")
    kept = (tmp_path / "kept.svg").read_text(encoding="utf-8")
    assert kept.startswith("<svg")
    assert kept.endswith("</svg>")


# --- any width, paper, and no script -----------------------------------------------------------------------------


def test_the_page_never_scrolls_sideways(page: Page) -> None:
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("() => document.querySelectorAll('main details').forEach((one) => { one.open = true; })")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert page.evaluate(SIDEWAYS) == {"beyond": 0, "wide": []}, width


def test_what_is_too_wide_would_be_noticed(opener: Opener, report_file: Path, tmp_path: Path) -> None:
    fault = f"<p><code>{WORD}</code></p><pre>{WORD}</pre><table><tr><td>{WORD * 3}</td></tr></table>"
    with opener(planted(report_file, tmp_path, fault), width=360) as page:
        found = page.evaluate(SIDEWAYS)
        assert found["beyond"] > 0
        assert set(found["wide"]) == {"table.", "tbody.", "tr.", "td."}, "long words break, and what is set scrolls"


def test_the_page_prints_whole_and_light(opener: Opener, report_file: Path, tmp_path: Path) -> None:
    with opener(report_file, color_scheme="dark") as page:
        page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
        page.emulate_media(media="print", color_scheme="dark")
        assert _paper(page) == LIGHT
        unseen = "(one) => !one.checkVisibility() && !one.closest('.limits')"  # what a reader sets is for the screen
        hidden = f"all => all.filter({unseen}).map((one) => one.outerHTML.slice(0, 60))"
        assert page.eval_on_selector_all("main tr, main figure, main p, main pre", hidden) == []
        assert (
            page.eval_on_selector_all("nav, button.tool, .skip", "all => all.filter(one => one.checkVisibility())")
            == []
        )
    content = (tmp_path / "page.pdf").read_bytes()
    pages = [int(count) for count in re.findall(rb"/Count (\d+)", content)]
    assert 20 <= max(pages) <= 60


def test_the_printed_page_has_all_texts_and_repeats_the_heads_of_long_tables(page: Page, tmp_path: Path) -> None:
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("no pdftotext here to read what was printed")
    page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    command = [reader, "-layout", str(tmp_path / "page.pdf"), "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for heading in page.locator("h2, summary + pre").all_inner_texts():
        assert " ".join(heading.split()[:3]) in " ".join(text.split())
    sheets = [sheet for sheet in text.split("\f") if re.search(r"\bprefill\b.*\d\s*$", sheet, re.MULTILINE)]
    assert len(sheets) > 1, "a table that goes on on a next page"
    assert all(re.search(r"scheme.*phase.*median", sheet) for sheet in sheets)


def test_a_missing_figure_stops_no_script(opener: Opener, report_file: Path, tmp_path: Path) -> None:
    shutil.copytree(report_file.parent, tmp_path / "results")
    (tmp_path / "results/summary/pareto.svg").unlink()
    found = contents(study(), tmp_path / "results", TEMPLATES / "reported.yaml")
    render(TEMPLATES, tmp_path / "page.html", found, complete=False)
    with opener(tmp_path / "page.html") as page:
        assert page.get_by_text("The figure").first.is_visible()
        assert page.locator("button.theme, th button.sort, a.term").count() > 3


def test_without_scripts_the_page_is_still_whole(opener: Opener, report_file: Path) -> None:
    with opener(report_file, java_script_enabled=False) as page:
        assert page.locator("button:visible").count() == 0, "nothing that would do nothing"
        assert page.locator("nav a").first.is_visible()
        assert page.locator("main img").count() == FIGURES
        assert page.locator("main table").first.is_visible()
        page.locator("main details:has(tbody)").first.locator("summary").click()
        assert page.locator("main details:has(tbody)").first.locator("tbody tr").first.is_visible()
        page.locator("nav a[href='#attention']").click()
        assert page.url.endswith("#attention")
