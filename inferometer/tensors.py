"""Named tensors in a file that knows what it holds: the safetensors format itself has no checksum."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inferometer.errors import InferometerError
from inferometer.files import whole_file

DIGEST = "sha256"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, whole, with a digest of their names, shapes and values."""
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={DIGEST: _digest(tensors)})


def read_tensors(path: Path, *names: str) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote: tensors of these names.

    Raises InferometerError naming the file when it is missing, damaged or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get(DIGEST)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is not a mapping
    except (OSError, SafetensorError) as error:
        raise InferometerError(f"cannot read the tensors {path}: {error}; delete it and run again.") from error
    if set(tensors) != set(names) or digest is None:
        raise InferometerError(f"{path} holds something else than {', '.join(names)}; delete it and run again.")
    if digest != _digest(tensors):
        raise InferometerError(f"{path} was damaged since it was written; delete it and run again.")
    return tensors
