"""Reading tables for the page: one that is missing or empty is said in one sentence, for whoever draws from less."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from inferometer import tables
from inferometer.attention.tables import MAPS, PHASES, RESIDUALS
from inferometer.capacity.tables import STORED
from inferometer.claims.tables import CLAIMS
from inferometer.errors import InferometerError
from inferometer.evaluation.tables import ACCURACY, GAINS
from inferometer.kv_cache.tables import CACHE_PAIRS, CACHE_TRACE
from inferometer.profiling.tables import CACHE_SPEED, KERNEL_SPEED, KNEES
from inferometer.rotation.tables import BASIS
from inferometer.tables import Table

# A study with one scheme, without pairs to compare or with random weights alone has no rows in these.
MAY_BE_EMPTY: Final = (
    CLAIMS,
    GAINS, ACCURACY, BASIS, STORED, KNEES, CACHE_SPEED, KERNEL_SPEED, CACHE_PAIRS, CACHE_TRACE, MAPS, PHASES, RESIDUALS,
)  # fmt: skip


class EmptyTableError(InferometerError):
    """A table is whole and has no rows: nothing of the kind was measured."""


def read_table(table: Table, path: Path) -> pd.DataFrame:
    """Read a file of this table.

    Raises InferometerError when it is missing or damaged, and EmptyTableError when it has no rows but must.
    """
    if not path.exists():
        raise InferometerError(f"the table {path} is missing.")
    frame = tables.read_table(table, path)
    if frame.empty and table not in MAY_BE_EMPTY:
        raise EmptyTableError(f"the table {path} has no rows: nothing of the kind was measured.")
    return frame


def without_rows(table: Table) -> pd.DataFrame:
    """The table as a file without rows would have it."""
    empty: pd.DataFrame = table.arrow_schema.empty_table().to_pandas()
    return empty


def read_of_chapter(config: Mapping[str, Any], chapter: str, table: Table, path: Path) -> pd.DataFrame:
    """A table that another chapter makes; without rows where the study leaves that chapter out."""
    return read_table(table, path) if chapter in config["study"]["chapters"] else without_rows(table)
