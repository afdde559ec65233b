"""What the section `sources` shows beside the models: texts, questions and images with their pins and licences."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferometer.chapters import uses
from inferometer.files import sha256_of


@dataclass(frozen=True)
class Source:
    """One text, question set or image set with its uses; `sha256` is that of what was read from it, if it is there."""

    kind: str
    name: str
    uses: list[str]
    origin: str
    licence: str | None
    attribution: str | None
    sha256: str | None


def _origin(entry: Mapping[str, Any]) -> str:
    match entry["source"]:
        case "pypi":
            return f"PyPI {entry['package']}=={entry['version']}, {entry['file']}, sha256 {entry['file_sha256']}"
        case "hub":
            pin = f", sha256 {entry['file_sha256']}" if "file_sha256" in entry else ""
            files = entry.get("file") or f"{entry['train']} and {entry['test']}"
            return f"hub {entry['id']} at {entry['revision']}, {files}{pin}"
        case "local":
            return f"local {entry.get('path') or ', '.join([entry['train'], entry['test']])}"
        case package:
            return f"package {package}"


FILES = {  # section of the configuration: what a reader calls it, and where it lies under the results
    "corpora": ("text", "sources/corpora/{}.parquet"),
    "question_sets": ("questions", "sources/questions/{}.parquet"),
    "image_sets": ("images", "sources/images/{}.safetensors"),
}


def sources(config: Mapping[str, Any], results: Path) -> list[Source]:
    """Everything but models that the study reads, texts first."""
    found = []
    for section, (kind, pattern) in FILES.items():
        for (where, name), chapters in uses(config).items():
            if where == section:
                entry, path = config[section][name], results / pattern.format(name)
                digest = sha256_of(path) if path.exists() else None
                licence, attribution = entry.get("licence"), entry.get("attribution")
                found.append(Source(kind, name, chapters, _origin(entry), licence, attribution, digest))
    return found
