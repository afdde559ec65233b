"""What a model's own basis is worth to rounding: weights rounded to 4 bits as they are and as rotated.

A checkpoint that was unpacked from a 4-bit format may still lie on its grid, so that rounding to a like grid costs
nothing. A rotation mixes channels and leaves any such grid.
"""

from collections.abc import Iterable

import pandas as pd
import torch
from transformers import PreTrainedModel

from inferometer.folding import folded
from inferometer.models import quantizable_layers, weight_matrix
from inferometer.quantization.grids import IntegerGrid
from inferometer.quantization.noise import sqnr_db
from inferometer.rotation.fold import Path, rotation_changes

GROUP_SIZE = 32  # the block of GGUF's 4-bit formats
GRID = IntegerGrid("per_group", GROUP_SIZE, bits=4, symmetric=False)


def _weights_sqnr_db(model: PreTrainedModel) -> dict[str, float]:
    """The SQNR of every quantizable layer's weight [outputs, inputs] on GRID, in decibels, by layer name.

    Layers whose inputs do not part into whole groups are left out.
    """
    weights = {name: weight_matrix(layer) for name, layer in quantizable_layers(model).items()}
    return {
        name: sqnr_db(GRID.round_trip(weight), weight)
        for name, weight in weights.items()
        if weight.shape[1] % GROUP_SIZE == 0
    }


@torch.no_grad()
def compare_bases(model: PreTrainedModel, paths: Iterable[Path], seed: int) -> pd.DataFrame:
    """Rows of the BASIS table for a float32 model and the paths that a rotation takes in it.

    All quantizable layers are on some path: `find_paths` refuses a model in which one is not.
    """
    own = _weights_sqnr_db(model)
    with folded(rotation_changes(model, paths, seed)):
        rotated = _weights_sqnr_db(model)
    return pd.DataFrame(
        [(name, own[name], rotated[name]) for name in own],
        columns=["layer", "weight_sqnr_db", "rotated_weight_sqnr_db"],
    )
