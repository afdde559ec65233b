"""Writing an evaluation's tables, and the float model's hidden states for the schemes that come after it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from inferometer.errors import InferometerError
from inferometer.evaluation.evaluate import Evaluation
from inferometer.evaluation.reference import Reference
from inferometer.evaluation.tables import CHOICES, FIDELITY, LAYERS, STORAGE, WINDOWS
from inferometer.files import whole_file
from inferometer.tables import write_table


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
        with whole_file(Path(files["hidden"])) as partial:
            save_file({"hidden": torch.cat(result.scores.hidden), "packs": torch.tensor(result.packs)}, partial)


def read_reference(path: Path) -> Reference:
    """What the float model left for the other schemes. Raises InferometerError on a file that holds something else."""
    try:
        tensors = load_file(path)
        return Reference(list(tensors["hidden"].split(1)), bool(tensors["packs"]))
    except Exception as error:  # safetensors raises classes of its own
        raise InferometerError(f"cannot read the hidden states {path}: {error}; delete it and run again.") from error
