"""The rotation chapter from end to end: the paths of a model, and the proof that rotating it changes nothing."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.errors import InferometerError
from inferometer.folding import TOLERANCE, folded, relative_error
from inferometer.rotation.fold import Path, online_rotations, rotation_changes
from inferometer.rotation.online import inputs_rotated
from inferometer.rotation.paths import find_paths


@torch.no_grad()
def prove_rotation(model: PreTrainedModel, seed: int, tokens: Tensor) -> tuple[list[Path], float]:
    """The paths of a float32 model, and the relative error of its logits on `tokens` [1, tokens] when rotated.

    Raises InferometerError when the model can't be rotated, or when rotating changes the logits by more than 1e-4.
    """
    paths = find_paths(model)
    expected = model(tokens).logits
    online = online_rotations(model, paths, seed)
    with folded(rotation_changes(model, paths, seed)), inputs_rotated(model, online):
        error = relative_error(model(tokens).logits, expected)
    if not error <= TOLERANCE:
        raise InferometerError(
            f"rotation changes the float model: relative logit error {error:.2e}, allowed {TOLERANCE:.0e}. This model "
            "can't be rotated; leave the schemes with `rotation` out of `study.schemes`."
        )
    return paths, error
