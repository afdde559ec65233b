"""Writing an evaluation's tables, and the float model's hidden states for the schemes that come after it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from inferometer.errors import InferometerError
from inferometer.evaluation.evaluate import Evaluation
from inferometer.evaluation.reference import Reference
from inferometer.evaluation.tables import CHOICES, FIDELITY, LAYERS, STORAGE, WINDOWS
from inferometer.tables import write_table
from inferometer.tensors import read_tensors, write_tensors


def write_evaluation(
    result: Evaluation, files: Mapping[str, str], origin: Mapping[str, str], machine: Mapping[str, str]
) -> None:
    """Write every table of an evaluation to `files` by name, and its hidden states where these are asked for.

    `origin` are the columns that say what was scored and how, `machine` those that say where.
    """
    tables = {
        "windows": (WINDOWS, result.scores.windows.assign(**origin, **machine)),
        "fidelity": (FIDELITY, result.scores.fidelity),
        "choices": (CHOICES, result.choices.assign(**machine)),
        "layers": (LAYERS, result.layers),
        "storage": (STORAGE, result.storage),
    }
    for name, (table, frame) in tables.items():
        write_table(table, frame, Path(files[name]))
    if files.get("hidden"):
        tensors = {"hidden": torch.cat(result.scores.hidden), "packs": torch.tensor(result.packs)}
        write_tensors(tensors, Path(files["hidden"]))


def read_reference(path: Path, windows: Sequence[Tensor], width: int) -> Reference:
    """What the float model left for the other schemes: hidden states of these windows, as wide as its head's input.

    Raises InferometerError naming the file when it is damaged or was left by other windows or another model.
    """
    tensors = read_tensors(path, "hidden", "packs")
    found, expected = tuple(tensors["hidden"].shape), (len(windows), windows[0].shape[1], width)
    if found != expected:
        raise InferometerError(
            f"{path} holds hidden states of another model or text: {found} windows, tokens and channels instead of "
            f"{expected}; delete it and run again."
        )
    return Reference(list(tensors["hidden"].split(1)), bool(tensors["packs"]))
