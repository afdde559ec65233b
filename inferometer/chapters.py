"""The chapters of a study that may be left out, and what those that it has read."""

from collections.abc import Mapping
from typing import Any, Final

CHAPTERS: Final = ("evaluation", "capacity", "profiling", "kv_cache", "generation", "attention", "fundamentals")
WEIGHTLESS: Final = ("capacity", "profiling", "fundamentals")  # what they say holds for random weights too


def uses(config: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """What the study's chapters read, by section of the configuration (such as `corpora`) and name, each with its uses.

    In the order of the chapters.
    """
    attention, evaluation, kv_cache = config["attention"], config["evaluation"], config["kv_cache"]
    read: dict[str, list[tuple[str, str, list[str]]]] = {
        "evaluation": [
            ("calibration", "corpora", [config["calibration"]["corpus"]]),
            ("evaluation", "corpora", [evaluation["corpus"]]),
            ("evaluation", "question_sets", evaluation["choices"]["question_sets"]),
        ],
        "kv_cache": [
            ("KV cache", "corpora", [kv_cache["corpus"]]),
            ("KV cache", "question_sets", kv_cache["choices"]["question_sets"]),
        ],
        "generation": [("generation", "corpora", [config["generation"]["insertions"]["corpus"]])],
        "attention": [
            ("attention", "corpora", attention["inputs"]["corpora"]),
            ("attention", "corpora", [attention["rounding"]["corpus"], attention["eviction"]["corpus"]]),
            ("attention", "question_sets", attention["inputs"]["question_sets"]),
        ],
        "fundamentals": [("fundamentals", "image_sets", [config["fundamentals"]["digits"]["image_set"]])],
    }
    found: dict[tuple[str, str], list[str]] = {}
    for chapter in CHAPTERS:
        for use, section, names in read.get(chapter, []) if chapter in config["study"]["chapters"] else []:
            for name in names:
                own = found.setdefault((section, name), [])
                if use not in own:
                    own.append(use)
    return found


def names_read(config: Mapping[str, Any], section: str) -> list[str]:
    """The names in a section of the configuration that the study's chapters read, each once, in alphabetical order."""
    return sorted(name for where, name in uses(config) if where == section)
