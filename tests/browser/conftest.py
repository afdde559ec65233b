"""A real browser without a network, and the page of a made-up study whose texts are as awkward as they may be."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from inferometer.report.contents import contents
from inferometer.report.page import render
from tests.synthetic import study, write_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TEMPLATES = Path(__file__).parents[2] / "report"
WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here to render the page")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`report.html` in a folder of its own, beside its results."""
    folder = tmp_path_factory.mktemp("browser")
    config = study(title=f"<b>Bold</b> & {WORD}", attribution=WORD, caveat=f"{WORD} <script>alert(1)</script>")
    write_results(config, folder / "results")
    page = folder / "results/report.html"
    render(TEMPLATES, page, contents(config, folder / "results", TEMPLATES / "reported.yaml"))
    return page


@pytest.fixture
def page(browser: Browser, report_file: Path) -> Iterator[Page]:
    """The page, opened from disk without a network; the test fails on any request, error or message of the console."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("console", lambda message: troubles.append(message.text))
    opened.on(
        "request",
        lambda request: None if request.url.startswith(("data:", "file:", "blob:")) else troubles.append(request.url),
    )
    opened.goto(report_file.as_uri())
    yield opened
    context.close()
    assert troubles == []
