"""The sections of the page, and why one of them may have nothing to show."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from inferometer.errors import InferometerError
from inferometer.report.reading import EmptyTableError

T = TypeVar("T")


@dataclass(frozen=True)
class Section:
    """One section: its anchor and template, its entry in the navigation, the chapter of the study that it belongs to,
    and the target of Snakemake that makes what it shows; a target's name where these are its own, or none."""

    name: str
    title: str
    chapter: str | None = None
    target: str | None = None


SECTIONS: Final = (
    Section("answers", "Answers"),
    Section("claims", "Claims", None, "claims"),
    Section("decision", "Decision", "evaluation", "evaluation"),
    Section("evaluation", "Evaluation", "evaluation", "evaluation"),
    Section("calibration", "Calibration", "evaluation", "calibration"),
    Section("smoothing", "Smoothing", "evaluation", "smoothing"),
    Section("rotation", "Rotation", "evaluation", "rotation"),
    Section("capacity", "Capacity", "capacity", "capacity"),
    Section("profiling", "Profiling", "profiling", "profiling"),
    Section("kv_cache", "KV cache", "kv_cache", "kv_cache"),
    Section("generation", "Generation", "generation", "generation"),
    Section("attention", "Attention", "attention", "attention"),
    Section("fundamentals", "Fundamentals", "fundamentals", "fundamentals"),
    Section("machine", "Machine and time"),
    Section("sources", "Sources", None, "sources"),
    Section("reproduce", "Reproduce"),
    Section("formulas", "Formulas"),
    Section("glossary", "Glossary"),
)


@dataclass(frozen=True)
class Absence:
    """Why a section shows nothing; it also stands for the section's content, which says nothing of any model.

    `fault` is an error where results should be whole; there is none where the study is simply made so.
    """

    sentence: str
    fault: Exception | None = None
    models: list[Any] = field(default_factory=list)


def absence(error: Exception) -> Absence:
    """What the reader is told of an error that came up while a section was made."""
    match error:
        case EmptyTableError():
            return Absence(_sentence(error))
        case InferometerError():
            return Absence(_sentence(error), error)
        case _:
            reason = str(error).splitlines()[0] if str(error) else "no reason given"
            return Absence(
                f"The results at hand do not fit the configuration ({type(error).__name__}: {reason}).", error
            )


def _sentence(error: InferometerError) -> str:
    said = str(error)
    return said[:1].upper() + said[1:]


@dataclass
class Gathering:
    """Makes what sections show, and remembers why it could not; `chapters` are those that the study has."""

    chapters: tuple[str, ...]
    absences: dict[str, Absence] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for section in SECTIONS:
            if section.chapter and section.chapter not in self.chapters:
                self.absences[section.name] = Absence(
                    f"This study leaves the chapter out: `study.chapters` in its configuration does not list "
                    f"`{section.chapter}`."
                )

    def __call__(self, name: str, make: Callable[[], T], otherwise: T) -> T:
        """What `make` returns for the section `name`, or `otherwise` if the section has nothing to show."""
        if name in self.absences:
            return otherwise
        try:
            return make()
        except Exception as error:  # one section must not take the others with it; `render` decides what is a fault
            self.absences[name] = absence(error)
            return otherwise

    def silences(self, name: str, *others: str) -> None:
        """What leaves the section `name` without anything to show does so to the others."""
        if name in self.absences:
            self.absences = {**dict.fromkeys(others, self.absences[name]), **self.absences}

    def whole(self, name: str, make: Callable[[], T]) -> T | Absence:
        """What `make` returns as all that the section `name` shows, or why there is nothing."""
        made: T | None = self(name, make, None)
        return self.absences[name] if made is None else made

    def unanswered(self) -> list[str]:
        """A sentence for each reason why chapters say nothing, with the titles of their sections."""
        silent: dict[str, list[str]] = {}
        for section in SECTIONS:
            if section.chapter and section.name in self.absences:
                silent.setdefault(self.absences[section.name].sentence, []).append(section.title)
        return [f"{', '.join(titles)}: {sentence}" for sentence, titles in silent.items()]
