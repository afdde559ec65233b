"""A real browser without a network, and the page of a made-up study whose texts are as awkward as they may be."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from inferometer.report.contents import contents
from inferometer.report.page import render
from tests.synthetic import add_measured_model, study, write_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TEMPLATES = Path(__file__).parents[2] / "report"
WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3
HOSTILE = (
    f"\"quoted\" 'single' & </script><script>alert(1)</script><img src=x onerror=alert(2)> ]]> --> \x00\x1b\x7f "
    f"\u202eoverride\u202c \u2066שלום\u2069 {{{{ 7 * 7 }}}} =cmd() {WORD}"
)

Opener = Callable[..., AbstractContextManager[Page]]


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
    config = study(title=f"<b>Bold</b> & {HOSTILE}", licence=HOSTILE, attribution=HOSTILE, caveat=HOSTILE)
    write_results(config, folder / "results")
    page = folder / "results/report.html"
    render(TEMPLATES, page, contents(config, folder / "results", TEMPLATES / "reported.yaml"))
    return page


@pytest.fixture(scope="session")
def report_of_two_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for a study of two measured models."""
    folder = tmp_path_factory.mktemp("two")
    config = study()
    write_results(config, folder / "results")
    add_measured_model(config, folder / "results", "other-llama")
    page = folder / "results/report.html"
    render(TEMPLATES, page, contents(config, folder / "results", TEMPLATES / "reported.yaml"))
    return page


@pytest.fixture(scope="session")
def opener(browser: Browser) -> Opener:
    """Opens a file from disk without a network; fails on any request, error or message of the console."""

    @contextmanager
    def opened(file: Path, width: int = 1280, **options: Any) -> Iterator[Page]:
        context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, **options)
        page = context.new_page()
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(("data:", "file:", "blob:")) else troubles.append(request.url)
            ),
        )
        page.goto(file.as_uri())
        yield page
        context.close()
        assert troubles == []

    return opened


@pytest.fixture
def page(opener: Opener, report_file: Path) -> Iterator[Page]:
    """The page at 1280 pixels in light; the test fails on any request, error or message of the console."""
    with opener(report_file) as opened:
        yield opened
