"""Paths as a table holds them, for whoever rotates the model again."""

import dataclasses

import pandas as pd

from inferometer.rotation.fold import Path
from inferometer.tables import records

_FIELDS = tuple(field.name for field in dataclasses.fields(Path))


def paths_of(table: pd.DataFrame) -> list[Path]:
    """The paths of a PATHS table, in order."""
    return [Path(**{name: row[name] for name in _FIELDS}) for row in records(table.sort_values("place"))]


def table_of(paths: list[Path], logit_error: float) -> pd.DataFrame:
    """Rows of the PATHS table."""
    frame = pd.DataFrame([dataclasses.asdict(path) for path in paths])
    return frame.reset_index(names="place").assign(logit_error=logit_error)
