"""The documentation as a site: Markdown by MyST, built with `make docs` and never with a warning."""

import tomllib
from pathlib import Path

from sphinx.application import Sphinx

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "Inferometer"
version = release = _PROJECT["version"]
extensions = ["myst_parser"]
myst_heading_anchors = 3  # links to headings as GitHub makes them
html_theme = "furo"
html_title = f"Inferometer {version}"
html_copy_source = False
html_show_copyright = False


def _own_pages(_app: Sphinx, _page: str, source: list[str]) -> None:
    """The site has a page for the text on the configuration, which lies beside the files that it is about."""
    source[0] = source[0].replace("(../config/README.md", "(configuration.md")


def setup(app: Sphinx) -> None:
    """Sphinx calls this when it reads the configuration."""
    app.connect("source-read", _own_pages)
