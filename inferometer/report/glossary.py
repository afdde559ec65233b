"""The glossary of the page: the field's words, how else they are spelled, and what they mean in one sentence."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from inferometer.errors import InferometerError


@dataclass(frozen=True)
class Term:
    """A word of the field with its other spellings and its meaning."""

    term: str
    spellings: list[str]
    meaning: str

    @property
    def id(self) -> str:
        """The anchor of its entry."""
        return "glossary-" + re.sub(r"\W+", "-", self.term.lower()).strip("-")


def glossary(path: Path) -> list[Term]:
    """The terms of a file such as report/glossary.yaml, by the alphabet.

    Raises InferometerError naming the file where two entries claim one spelling or share an anchor.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    terms = [Term(entry["term"], entry.get("also", []), entry["means"]) for entry in entries]
    claimed: dict[str, str] = {}
    for term in terms:
        for name in dict.fromkeys((term.id, *(word.lower() for word in (term.term, *term.spellings)))):
            if name in claimed:
                raise InferometerError(f"{path}: {term.term} and {claimed[name]} both claim {name}; keep one.")
            claimed[name] = term.term
    return sorted(terms, key=lambda term: term.term.lower())
