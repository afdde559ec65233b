"""The formulas of the page: written once in LaTeX, drawn as MathML, each with its symbols and its source."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml
from latex2mathml.converter import convert
from markupsafe import Markup

from inferometer.errors import InferometerError

MATHML = "{http://www.w3.org/1998/Math/MathML}"
ELEMENTS = {"math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup"}
ELEMENTS |= {"munder", "mover", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded"}
ATTRIBUTES = {
    "display",
    "stretchy",
    "fence",
    "form",
    "separator",
    "width",
    "columnalign",
    "mathvariant",
    "movablelimits",
}
ATTRIBUTES |= {"displaystyle", "scriptlevel", "accent", "linethickness", "minsize", "maxsize"}


@dataclass(frozen=True)
class Formula:
    """A formula with the meaning of its symbols, its source, and the heading of docs/methods.md that explains it."""

    id: str
    name: str
    mathml: Markup
    symbols: list[tuple[Markup, str]]
    source: str
    methods: str


def mathml(latex: str, *, block: bool = False) -> Markup:
    """LaTeX as MathML that may stand on the page as it is.

    Raises InferometerError where the LaTeX can't be read, or yields anything that is no plain mathematics.
    """
    try:
        drawn = convert(latex, display="block" if block else "inline")
        elements = list(ElementTree.fromstring(drawn).iter())
    except Exception as error:  # the converter has a dozen kinds of its own, with no common one
        raise InferometerError(f"the formula {latex!r} can't be drawn ({error or type(error).__name__}).") from error
    for element in elements:
        name = element.tag.removeprefix(MATHML)
        strange = set(element.attrib) - ATTRIBUTES
        if name not in ELEMENTS or strange:
            raise InferometerError(f"the formula {latex!r} can't be drawn: <{name}> {' '.join(sorted(strange))}.")
    return Markup(drawn)  # what it may hold was looked at just now


def _formula(entry: Mapping[str, Any]) -> Formula:
    return Formula(
        id=entry["id"],
        name=entry["name"],
        mathml=mathml(entry["latex"], block=True),
        symbols=[(mathml(symbol), meaning) for symbol, meaning in entry["symbols"].items()],
        source=entry["source"],
        methods=entry["methods"],
    )


def formulas(path: Path) -> dict[str, Formula]:
    """The formulas of a file such as report/formulas.yaml by their ids, in its order.

    Raises InferometerError naming the file and the entry that lacks a field, has an id twice or can't be drawn.
    """
    found: dict[str, Formula] = {}
    for place, entry in enumerate(yaml.safe_load(path.read_text(encoding="utf-8")), start=1):
        try:
            formula = _formula(entry)
        except (KeyError, InferometerError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise InferometerError(f"{path}: entry {place} ({entry.get('id', 'no id')}): {reason}") from error
        if formula.id in found:
            raise InferometerError(f"{path}: the id {formula.id} is given twice; ids must differ.")
        found[formula.id] = formula
    return found
