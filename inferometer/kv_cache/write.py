"""Writing what was measured of every policy."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from inferometer.kv_cache.compare import Measured
from inferometer.kv_cache.tables import CACHE_CHOICES, CACHE_LATENCY, CACHE_MEMORY, CACHE_PERPLEXITY
from inferometer.tables import Table, write_table


def _together(table: Table, frames: Mapping[str, list[pd.DataFrame]], machine: Mapping[str, str]) -> pd.DataFrame:
    """Rows of every weight scheme as one table; its columns alone where there are none."""
    parts = [part.assign(scheme=scheme) for scheme, own in frames.items() for part in own if len(part)]
    names = [column.name for column in table.columns]
    if not parts:
        return pd.DataFrame(columns=names)
    whole = pd.concat(parts, ignore_index=True)
    return whole.assign(**{name: value for name, value in machine.items() if name in names})


def write_policy(measured: Mapping[str, Measured], files: Mapping[str, Path], machine: Mapping[str, str]) -> None:
    """Write the tables of one policy, of which `measured` holds the rows by weight scheme, to `files` by name."""
    tables = {
        "perplexity": (CACHE_PERPLEXITY, {scheme: own.perplexity for scheme, own in measured.items()}),
        "choices": (CACHE_CHOICES, {scheme: own.choices for scheme, own in measured.items()}),
        "latency": (CACHE_LATENCY, {scheme: [pd.DataFrame(own.latency)] for scheme, own in measured.items()}),
        "memory": (CACHE_MEMORY, {scheme: [pd.DataFrame(own.memory)] for scheme, own in measured.items()}),
    }
    for name, (table, frames) in tables.items():
        write_table(table, _together(table, frames, machine), files[name])
