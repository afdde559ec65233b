"""Rendering the page: one self-contained HTML file that opens from disk without a network."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from inferometer.files import whole_file
from inferometer.report import describe, formats, marks, sentences

MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Figure:
    """A figure file with what the reader needs to understand it, and what one sees who can't see it."""

    path: Path
    caption: str
    alternative: str

    @property
    def data_uri(self) -> str:
        """The file's content as an address that needs no network."""
        content = base64.b64encode(self.path.read_bytes()).decode("ascii")
        return f"data:{MEDIA_TYPES[self.path.suffix]};base64,{content}"


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
    environment.globals["sentences"] = sentences
    environment.globals["describe"] = describe
    environment.globals["marks"] = marks
    style, script = _joined(templates, "*.css"), _joined(templates, "*.js")
    with whole_file(path) as partial:
        page = environment.get_template("page.html.j2").render(style=style, script=script, **context)
        partial.write_text(page, encoding="utf-8")
