"""What a fetched checkpoint is, as a small file beside it; needs no torch."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferometer.errors import InferometerError

DIGEST = "sha256"


def _as_json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_as_json(fields).encode()).hexdigest()


@dataclass(frozen=True)
class CheckpointFile:
    """One file of a checkpoint with what it must be."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a fetched checkpoint is. `origin` says where it came from, with its pin."""

    name: str
    origin: str
    architecture: str
    parameters: int
    layers: int
    hidden_size: int
    vocabulary: int
    context_tokens: int
    dtype: str
    random_weights: bool
    seed: int | None
    files: tuple[CheckpointFile, ...]

    def write(self, path: Path) -> None:
        """Write as JSON with a digest of itself, byte-stable."""
        fields = dataclasses.asdict(self)
        path.write_text(_as_json({**fields, DIGEST: _digest(fields)}), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> "Manifest":
        """Read what `write` wrote. Raises InferometerError when the file is missing, damaged or is something else."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            digest = fields.pop(DIGEST, None)  # none in results of an earlier version
            if digest not in (None, _digest(fields)):
                raise ValueError("another digest")
            fields["files"] = tuple(CheckpointFile(**file) for file in fields["files"])
            return Manifest(**fields)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InferometerError(
                f"{path} is not a manifest of this version ({type(error).__name__}); delete it and run again."
            ) from error


def check_window(manifest: Manifest, window_tokens: int, key: str) -> None:
    """Raise InferometerError when a window is longer than the model's context; `key` names the setting."""
    if window_tokens > manifest.context_tokens:
        raise InferometerError(
            f"configuration key `{key}` is {window_tokens}, but {manifest.name} has a context of "
            f"{manifest.context_tokens} tokens; set it to at most that."
        )


def check_context(manifest: Manifest, prompt_tokens: int, new_tokens: int, key: str) -> None:
    """Raise InferometerError when a prompt and what is written after it exceed the context; `key` names the setting."""
    if prompt_tokens + new_tokens > manifest.context_tokens:
        raise InferometerError(
            f"configuration key `{key}`: {prompt_tokens} tokens of a prompt and {new_tokens} written after it are more "
            f"than the context of {manifest.name}, {manifest.context_tokens} tokens; set it lower."
        )
