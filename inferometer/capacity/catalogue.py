"""Public models and GPUs as facts with their sources, and configurations from elsewhere; needs no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml

from inferometer.capacity.shapes import Shape, shape_of
from inferometer.errors import InferometerError
from inferometer.sources.reasons import reason_of
from inferometer.units import GIB

FOLDER = Path(__file__).parent
NEWEST = "main"
LARGEST_BYTES = 2**24  # of a config.json, which has some thousands


@dataclass(frozen=True)
class Gpu:
    """What its maker states of a GPU; `peak_per_s` holds dense operations a second by dtype."""

    key: str
    name: str
    source: str
    memory_gib: float
    bandwidth_bytes_per_s: float
    peak_per_s: Mapping[str, float]

    @property
    def memory_bytes(self) -> int:
        """Its memory, with the GB of the data sheet counted as GiB."""
        return round(self.memory_gib * GIB)

    def ridge(self, dtype: str) -> float:
        """Operations per byte above which it is bound by arithmetic (Williams et al. 2009, roofline)."""
        return self.peak_per_s[dtype] / self.bandwidth_bytes_per_s


@cache
def _facts(file: str) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], yaml.safe_load((FOLDER / file).read_text(encoding="utf-8")))


def model_names() -> list[str]:
    """Names of the models whose shapes are shipped."""
    return list(_facts("models.yaml"))


def gpu_names() -> list[str]:
    """Names of the GPUs in the catalogue."""
    return list(_facts("gpus.yaml"))


def gpu(name: str) -> Gpu:
    """A GPU of the catalogue. Raises InferometerError listing those that there are."""
    facts = _facts("gpus.yaml")
    if name not in facts:
        raise InferometerError(f"no GPU of the catalogue is called {name!r}; it has {', '.join(facts)}.")
    entry = facts[name]
    return Gpu(
        key=name,
        name=entry["name"],
        source=entry["source"],
        memory_gib=entry["memory_gib"],
        bandwidth_bytes_per_s=entry["bandwidth_gb_per_s"] * 1e9,
        peak_per_s={dtype: tera * 1e12 for dtype, tera in entry["peak_tera_per_s"].items()},
    )


def public_config(name: str) -> Mapping[str, Any]:
    """The fields of a shipped model's configuration."""
    return cast(Mapping[str, Any], _facts("models.yaml")[name]["config"])


def model_source(name: str) -> str:
    """Where the fields of a shipped model come from."""
    return str(_facts("models.yaml")[name]["source"])


def config_file(path: Path) -> Mapping[str, Any]:
    """The fields of a config.json. Raises InferometerError naming the file when it is none."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"it has more than {LARGEST_BYTES:,} bytes")
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = reason_of(error)
        raise InferometerError(f"{path} can't be read as a model's configuration ({reason}); get it again.") from error
    if not isinstance(fields, dict):
        raise InferometerError(f"{path} holds no fields of a configuration; get it again.")
    return fields


def find_shape(model: str) -> Shape:
    """The shape of a shipped model, of a config.json or the folder that holds it, or of a model on the hub.

    The hub is asked for names such as `owner/name` or `owner/name@commit`. Raises InferometerError with what to do.
    """
    if model in model_names():
        return shape_of(public_config(model), f"the shipped configuration {model}")
    path = Path(model)
    if path.exists():
        path = path / "config.json" if path.is_dir() else path
        return shape_of(config_file(path), str(path))
    if model.count("/") == 1 and path.suffix != ".json":
        from inferometer.sources.hub import fetch_file  # takes longer to load than all else here

        repository, _, revision = model.partition("@")
        file = fetch_file(repository, revision or NEWEST, "config.json")
        return shape_of(config_file(file), f"config.json of {model}")
    raise InferometerError(
        f"{model!r} is neither a shipped model ({', '.join(model_names())}), nor a file or folder that exists, nor a "
        "repository of the hub such as owner/name; check its name."
    )


def shape_or_reason(checkpoint: Path, name: str) -> Shape | str:
    """The shape of a fetched model, or why nothing can be predicted of it: a study may well measure such models."""
    try:
        return shape_of(config_file(checkpoint / "config.json"), f"config.json of {name}")
    except InferometerError as error:
        return str(error)
