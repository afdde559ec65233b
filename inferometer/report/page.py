"""Rendering the page: one self-contained HTML file that opens from disk without a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from inferometer.files import whole_file
from inferometer.report import describe, formats, sentences
from inferometer.report.anchors import anchored, headings
from inferometer.report.embed import data_uri, size_px

# Characters that HTML forbids, as the pictures that Unicode has of them: a hostile text shows what it holds.
PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"} | {0x7F: 0x2421}


@dataclass(frozen=True)
class Figure:
    """A figure file with what the reader needs to understand it, and what one sees who can't see it."""

    path: Path
    caption: str
    alternative: str

    def anchor(self, results: str) -> str:
        """The figure's id on the page: its place in the folder `results`, such as figure-summary-pareto."""
        return "-".join(("figure", *self.path.relative_to(results).with_suffix("").parts))

    def saying(self, sentences: Sequence[str]) -> "Figure":
        """The figure with the first of the sentences that the tables made of it, for who can't see what it shows."""
        return replace(self, alternative=" ".join([self.alternative, *sentences[:1]]))

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height as drawn, in pixels of CSS."""
        return size_px(self.path)

    @property
    def data_uri(self) -> Markup:
        """The file's content as an address that needs no network."""
        return data_uri(self.path)


def _joined(templates: Path, pattern: str) -> str:
    """The text of all files that fit `pattern`, in the order of their names."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(templates.glob(pattern)))


def render(templates: Path, path: Path, context: Mapping[str, Any]) -> None:
    """Fill `page.html.j2` in the folder `templates` and write it to `path`.

    Everything is escaped, and a name that a template uses but the context lacks is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    helpers = ("number", "interval", "ratio", "ratio_interval", "percent", "gibibytes", "seconds")
    environment.filters |= {name: getattr(formats, name) for name in helpers}
    environment.globals |= {name: getattr(formats, name) for name in helpers}
    environment.filters["anchored"] = anchored
    environment.globals["headings"] = headings
    environment.globals["sentences"] = sentences
    environment.globals["describe"] = describe
    style, script = _joined(templates, "*.css"), _joined(templates, "*.js")
    with whole_file(path) as partial:
        page = environment.get_template("page.html.j2").render(style=style, script=script, **context)
        partial.write_text(page.translate(PICTURES), encoding="utf-8", errors="backslashreplace")
