"""The chapters of a study that may be left out, and the texts that the others read."""

from collections.abc import Mapping
from typing import Any, Final

CHAPTERS: Final = ("evaluation", "capacity", "profiling", "kv_cache", "generation", "attention", "fundamentals")
WEIGHTLESS: Final = ("capacity", "profiling", "fundamentals")  # what they say holds for random weights too


def corpora(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """The corpora that the study's chapters read, by name, each with its uses; in the order of the chapters."""
    attention = config["attention"]
    read = {
        "evaluation": [
            ("calibration", config["calibration"]["corpus"]),
            ("evaluation", config["evaluation"]["corpus"]),
        ],
        "kv_cache": [("KV cache", config["kv_cache"]["corpus"])],
        "generation": [("generation", config["generation"]["insertions"]["corpus"])],
        "attention": [
            ("attention", name)
            for name in dict.fromkeys(
                [
                    *attention["inputs"]["corpora"],
                    attention["rounding"]["corpus"],
                    attention["eviction"]["corpus"],
                ]
            )
        ],
    }
    uses: dict[str, list[str]] = {}
    for chapter in CHAPTERS:
        for use, name in read.get(chapter, []) if chapter in config["study"]["chapters"] else []:
            uses.setdefault(name, []).append(use)
    return uses


def question_sets(config: Mapping[str, Any]) -> list[str]:
    """The question sets that the study's chapters ask, each once; in the order of the chapters."""
    asked = {
        "evaluation": config["evaluation"]["choices"]["question_sets"],
        "kv_cache": config["kv_cache"]["choices"]["question_sets"],
        "attention": config["attention"]["inputs"]["question_sets"],
    }
    return list(
        dict.fromkeys(
            name for chapter in CHAPTERS if chapter in config["study"]["chapters"] for name in asked.get(chapter, [])
        )
    )
