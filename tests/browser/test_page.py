"""The page in a real browser: it renders from disk without a network, at any width, and prints."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inferometer.report.contents import contents
from inferometer.report.page import render
from tests.synthetic import (
    ATTENTION_FIGURES,
    CACHE_FIGURES,
    GENERATION_FIGURES,
    PROFILE_FIGURES,
    SECTIONS,
    study,
    write_results,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to render the page")

TEMPLATES = Path(__file__).parents[2] / "report"
WIDTHS = (360, 768, 1920)
FIGURES = 15 + PROFILE_FIGURES + CACHE_FIGURES + GENERATION_FIGURES + ATTENTION_FIGURES
WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3

# Nothing may be fetched but what lies in the page. The browser itself enforces it, and reports what it refused.
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
)
REFUSALS = """<script>
var refused = [];
document.addEventListener("securitypolicyviolation", function (event) { refused.push(event.blockedURI); });
</script>"""
MEASURE = """<script>
addEventListener("load", function () {
  var all = document.documentElement;
  parent.postMessage({
    scroll: all.scrollWidth,
    client: all.clientWidth,
    mode: document.compatMode,
    refused: refused,
    images: Array.from(document.images, function (image) { return [image.naturalWidth, image.width]; }),
    sections: Array.from(document.querySelectorAll("section"), function (section) { return section.id; }),
    wide: Array.from(document.querySelectorAll("body *")).filter(function (element) {
      return element.getBoundingClientRect().right > all.clientWidth + 1 && !element.closest(".scroll, pre");
    }).map(function (element) { return element.tagName + "." + element.className; }),
    heading: document.querySelector("h1").textContent
  }, "*");
});
</script>"""
# A window can't be as narrow as a telephone, but a frame can; each tells this page what it measured.
FRAMES = """<!DOCTYPE html><meta charset="utf-8"><pre id="measured"></pre><script>
var measured = {};
addEventListener("message", function (event) {
  var frame = Array.from(document.querySelectorAll("iframe")).find(function (one) {
    return one.contentWindow === event.source;
  });
  measured[frame.width] = event.data;
  document.getElementById("measured").textContent = JSON.stringify(measured);
});
</script>"""


def _browse(folder: Path, *arguments: str) -> str:
    """Run a browser that has no profile, no network services of its own and no window; what it wrote."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--user-data-dir={folder / 'profile'}",
        *arguments,
    ]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=folder)
    return finished.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `page.html`, of a study whose texts are as awkward as they may be."""
    path = tmp_path_factory.mktemp("browser")
    config = study(title=f"<b>Bold</b> & {WORD}", attribution=WORD, caveat=f"{WORD} <script>alert(1)</script>")
    write_results(config, path / "results")
    render(TEMPLATES, path / "page.html", contents(config, path / "results", TEMPLATES / "reported.yaml"))
    return path


@pytest.fixture(scope="module")
def measured(folder: Path) -> dict[int, dict[str, Any]]:
    """What the page measures of itself at each width, while nothing may be fetched."""
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert page.count("<head>") == page.count("</body>") == 1
    copy = page.replace("<head>", f"<head>{POLICY}{REFUSALS}").replace("</body>", f"{MEASURE}</body>")
    (folder / "copy.html").write_text(copy, encoding="utf-8")
    frames = "".join(f'<iframe src="copy.html" width="{width}" height="800"></iframe>' for width in WIDTHS)
    (folder / "frames.html").write_text(FRAMES + frames, encoding="utf-8")
    address = (folder / "frames.html").as_uri()
    dom = _browse(folder, "--window-size=2000,1000", "--virtual-time-budget=10000", "--dump-dom", address)
    [found] = re.findall(r'<pre id="measured">(.*?)</pre>', dom, flags=re.DOTALL)
    return {int(width): row for width, row in json.loads(html.unescape(found)).items()}


def test_the_page_renders_whole_with_nothing_fetched(measured: dict[int, dict[str, Any]]) -> None:
    assert sorted(measured) == sorted(WIDTHS)
    for row in measured.values():
        assert tuple(row["sections"]) == SECTIONS
        assert row["mode"] == "CSS1Compat", "standards mode"
        assert row["heading"] == f"<b>Bold</b> & {WORD}"
        assert row["refused"] == []


def test_every_figure_is_seen_with_nothing_fetched(measured: dict[int, dict[str, Any]]) -> None:
    for width, row in measured.items():
        assert len(row["images"]) == FIGURES
        assert all(natural > 0 and 200 < shown < width for natural, shown in row["images"])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(width: int, measured: dict[int, dict[str, Any]]) -> None:
    row = measured[width]
    assert row["client"] > width - 40, "the frame is as wide as it was asked to be, but for a scroll bar"
    assert row["wide"] == []
    assert row["scroll"] <= row["client"]


def test_the_policy_that_forbids_fetching_would_notice(folder: Path) -> None:
    """The check of the check: an image from elsewhere is refused and reported."""
    page = (folder / "page.html").read_text(encoding="utf-8")
    image = '<img src="http://127.0.0.1:9/outside.png" alt="">'
    report = "<pre id='refused'></pre><script>addEventListener('load', function () {\n"
    report += (
        "setTimeout(function () { document.getElementById('refused').textContent = refused.join(); }, 0); });</script>"
    )
    copy = page.replace("<head>", f"<head>{POLICY}{REFUSALS}").replace("</body>", f"{image}{report}</body>")
    (folder / "leaky.html").write_text(copy, encoding="utf-8")
    dom = _browse(folder, "--virtual-time-budget=10000", "--dump-dom", (folder / "leaky.html").as_uri())
    assert '<pre id="refused">http://127.0.0.1:9/outside.png</pre>' in dom


def test_the_page_prints(folder: Path) -> None:
    _browse(folder, "--print-to-pdf=page.pdf", "--no-pdf-header-footer", (folder / "page.html").as_uri())
    content = (folder / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(content) > 50_000
    pages = [int(count) for count in re.findall(rb"/Count (\d+)", content)]
    assert 3 <= max(pages) <= 40
