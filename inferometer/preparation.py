"""From a scheme's tables to what is done to the model before it is rounded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from inferometer.folding import Change
from inferometer.rotation.fold import online_rotations, rotation_changes
from inferometer.rotation.hadamard import Rotation
from inferometer.rotation.stored import paths_of
from inferometer.rotation.tables import PATHS
from inferometer.schemes import Scheme
from inferometer.smoothing.fold import folding_changes
from inferometer.smoothing.stored import factors_of, sites_of
from inferometer.smoothing.tables import SCALES, SITES
from inferometer.tables import read_table


@dataclass(frozen=True)
class Preparation:
    """What a scheme does to a model before and while it is rounded.

    `changes` are folded in, in groups that each start from what the ones before left; `rotations` are those of inputs,
    by layer; `calibration` windows [1, tokens] are for schemes whose rounding needs text.
    """

    changes: Iterable[Change]
    rotations: Mapping[str, Rotation]
    calibration: Sequence[Tensor]


def preparation_of(
    model: PreTrainedModel, scheme: Scheme, files: Mapping[str, str], calibration: Sequence[Tensor]
) -> Preparation:
    """What the tables among `files` ask for: `scales` and `sites` of smoothing, `paths` of a rotation.

    Names are looked up with `get`: of a job's inputs, `in` would look among the files.
    """
    if files.get("scales"):
        sites = sites_of(read_table(SITES, Path(files["sites"])))
        factors = factors_of(read_table(SCALES, Path(files["scales"])))
        return Preparation(folding_changes(model, sites, factors), {}, calibration)
    if files.get("paths"):
        assert scheme.rotation_seed is not None
        paths = paths_of(read_table(PATHS, Path(files["paths"])))
        changes = rotation_changes(model, paths, scheme.rotation_seed)
        return Preparation(changes, online_rotations(model, paths, scheme.rotation_seed), calibration)
    return Preparation((), {}, calibration)
