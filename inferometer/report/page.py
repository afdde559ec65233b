"""Rendering the page: one self-contained HTML file that opens from disk without a network."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from inferometer.errors import InferometerError
from inferometer.files import whole_file
from inferometer.report import describe, formats, marks, sentences
from inferometer.report.anchors import anchored, headings
from inferometer.report.embed import data_uri, size_px
from inferometer.report.sections import SECTIONS, Absence, Section, absence
from inferometer.visible import visible


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
        """Width and height as drawn, in pixels of CSS. Raises InferometerError if there is no file."""
        return size_px(self._there())

    @property
    def data_uri(self) -> Markup:
        """The file's content as an address that needs no network. Raises InferometerError if there is no file."""
        return data_uri(self._there())

    def _there(self) -> Path:
        if not self.path.is_file():
            raise InferometerError(f"the figure {self.path} is missing; `snakemake {self.path} --cores 1` draws it.")
        return self.path


def _joined(templates: Path, pattern: str) -> str:
    """The text of all files that fit `pattern`, in the order of their names."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(templates.glob(pattern)))


def _unfilled(error: TemplateError) -> InferometerError:
    """The sentence about a template that can't be filled, with its file and line."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    where = f"{places[-1].filename}, line {places[-1].lineno}" if places else "the page's templates"
    return InferometerError(
        f"{where}: {error.message or type(error).__name__}; mend the template, or name it in "
        "inferometer/report/contents.py."
    )


def _shown(value: object) -> object:
    """What a template prints: text from outside made visible, all else as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _drawing(environment: Environment, complete: bool) -> Callable[[Context, Section, Absence | None], Markup]:
    """What draws one section: its template, or a note in its place that says why there is nothing."""

    @pass_context
    def drawn(context: Context, section: Section, absent: Absence | None) -> Markup:
        names = context.get_all()
        if absent is None:
            try:
                return Markup(environment.get_template(f"{section.name}.html.j2").render(names))
            except Exception as error:
                if complete:
                    raise
                absent = absence(_unfilled(error) if isinstance(error, TemplateError) else error)
        elif complete and absent.fault:
            raise absent.fault
        return Markup(environment.get_template("absent.html.j2").render(names, section=section, absence=absent))

    return drawn


def render(
    templates: Path, path: Path, context: Mapping[str, Any], template: str = "page.html.j2", *, complete: bool = True
) -> None:
    """Fill a template in the folder `templates` and write it to `path`.

    Everything is escaped, and a name that a template uses but the context lacks is an InferometerError. So is whatever
    results lack that the study must have; a page that need not be `complete` says so in the place of each.
    """
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    helpers = ("number", "interval", "ratio", "ratio_interval", "percent", "gibibytes", "seconds", "day_and_time")
    environment.filters |= {name: getattr(formats, name) for name in helpers}
    environment.globals |= {name: getattr(formats, name) for name in helpers}
    environment.globals |= {"sentences": sentences, "describe": describe, "sections": SECTIONS, "complete": complete}
    environment.globals |= {"drawn": _drawing(environment, complete), "marks": marks, "headings": headings}
    environment.filters["anchored"] = anchored
    style, script = _joined(templates, "*.css"), _joined(templates, "*.js")
    with whole_file(path) as partial:
        try:
            page = environment.get_template(template).render(style=style, script=script, **context)
        except TemplateError as error:
            raise _unfilled(error) from error
        partial.write_text(page, encoding="utf-8")
