"""The tables of results as a database that queries can read and do nothing else with.

A table is called as its file lies under `results/`, a dot for each slash: `summary/schemes.parquet` is
`summary.schemes`. Folders that are the name of a model, scheme, policy or seed become a column of that name instead:
`<model>/kv_cache/<policy>/trace.parquet` is `kv_cache.trace` with the columns `model` and `policy`.
"""

import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb
import pyarrow as pa

from inferometer.attention.eviction_tables import EVICTED
from inferometer.attention.tables import ATTENTION_SCHEMES, HEADS, PHASES, RESIDUALS, SINKS
from inferometer.calibration.tables import RANGES
from inferometer.capacity.tables import INTENSITY, MACHINE, PARAMETERS, REQUESTS, RIDGES, STORED, STUDIES, WEIGHTS
from inferometer.errors import InferometerError
from inferometer.evaluation.tables import ACCURACY, CHOICES, GAINS, PERPLEXITY, SCHEMES, WINDOWS
from inferometer.fundamentals.tables import DECODER_CHECKS, DECODER_LATENCY, DECODER_SPEED, DIGIT_ACCURACY
from inferometer.generation.tables import (
    DIVERSITY,
    FEATURES,
    INSERTED,
    INSERTIONS,
    LOGGED,
    SAMPLES,
    TEMPERATURES,
    WRITTEN,
)
from inferometer.kv_cache.tables import (
    CACHE_CHOICES,
    CACHE_LATENCY,
    CACHE_LENGTHS,
    CACHE_PAIRS,
    CACHE_TRACE,
    KV_CACHE,
)
from inferometer.profiling.tables import (
    BASELINE,
    CACHE,
    CACHE_CHECKS,
    CACHE_SPEED,
    KERNEL_SPEED,
    KERNELS,
    KNEES,
    LATENCY,
    MEMORY,
    PROFILE,
    SLOPES,
)
from inferometer.rotation.tables import BASIS, PATHS
from inferometer.smoothing.tables import ALPHAS, SITES
from inferometer.tables import Table, read_table

READABLE = (
    *(RANGES, SITES, ALPHAS, PATHS, BASIS),
    *(WINDOWS, CHOICES, PERPLEXITY, GAINS, ACCURACY, SCHEMES),
    *(PARAMETERS, WEIGHTS, REQUESTS, INTENSITY, RIDGES, STUDIES, STORED, MACHINE),
    *(LATENCY, MEMORY, CACHE, CACHE_CHECKS, KERNELS, BASELINE, PROFILE, KNEES, SLOPES, CACHE_SPEED, KERNEL_SPEED),
    *(CACHE_CHOICES, CACHE_LATENCY, CACHE_TRACE, CACHE_LENGTHS, KV_CACHE, CACHE_PAIRS),
    *(WRITTEN, FEATURES, INSERTIONS, LOGGED, SAMPLES, DIVERSITY, TEMPERATURES, INSERTED),
    *(HEADS, RESIDUALS, SINKS, PHASES, ATTENTION_SCHEMES, EVICTED),
    *(DIGIT_ACCURACY, DECODER_CHECKS, DECODER_LATENCY, DECODER_SPEED),
)
LONGEST_S = 60  # after which a query is stopped
MOST_MEMORY = "2GB"  # that a query may take
SANDBOX = (  # in this order: the last forbids to change any of them
    "SET enable_external_access = false",
    "SET disabled_filesystems = 'LocalFileSystem'",
    "SET lock_configuration = true",
)


class QueryError(InferometerError):
    """A query that can't be asked or answers something else than a value; the message is the end of a sentence."""


@dataclass(frozen=True)
class Source:
    """A table under the name that queries use, with the columns that its files' folders stand for."""

    table: Table
    name: str
    folders: tuple[str, ...]

    @staticmethod
    def of(table: Table) -> "Source":
        """The source of a declared table."""
        parts = PurePosixPath(table.path).with_suffix("").parts
        folders = tuple(part[1:-1] for part in parts if part[0] == "<")
        return Source(table, ".".join(part for part in parts if part[0] != "<"), folders)

    def match(self, file: str) -> Mapping[str, str] | None:
        """The folders of a file relative to `results/`, by column; None where it is another table's."""
        pattern = re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", self.table.path.replace(".", r"\."))
        found = re.fullmatch(pattern, file)
        return found.groupdict() if found else None


@cache
def sources() -> Mapping[str, Source]:
    """All tables that queries may read, by the name that they use."""
    return {source.name: source for source in map(Source.of, READABLE)}


def tables_of(query: str) -> list[str]:
    """The tables that a query names, by name. One that it names in vain, in a comment, is only read in vain."""
    dot = r'"?\s*\.\s*"?'
    return [name for name in sources() if re.search(rf"(?<!\w){dot.join(name.split('.'))}(?!\w)", query, re.IGNORECASE)]


@dataclass(frozen=True)
class Answer:
    """What a query measured, in its own unit. `measured` is None where it found nothing."""

    measured: float | None
    low: float | None = None
    high: float | None = None


class Evidence:
    """The tables of one folder of results, in memory. Files that are not there are tables without rows."""

    def __init__(self, results: Path, files: Iterable[Path]) -> None:
        """Tell which of `files` in the folder `results` holds which table; none is read before a query asks for it."""
        self._files: dict[str, list[tuple[Path, Mapping[str, str]]]] = {name: [] for name in sources()}
        for file in files:
            path = file.relative_to(results).as_posix()
            for name, source in sources().items():
                if file.is_file() and (folders := source.match(path)) is not None:
                    self._files[name].append((file, folders))
        self._last: tuple[tuple[str, ...], duckdb.DuckDBPyConnection] | None = None

    def is_there(self, name: str) -> bool:
        """Whether the results have any file of a table."""
        return bool(self._files[name])

    def _content(self, name: str) -> pa.Table:
        """All rows of a table, with its folders as columns."""
        source = sources()[name]
        folders = [pa.field(folder, pa.string()) for folder in source.folders]
        schema = pa.schema([*folders, *source.table.arrow_schema])
        parts = [schema.empty_table()]
        for file, values in self._files[name]:
            frame = read_table(source.table, file).assign(**values)
            parts.append(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
        return pa.concat_tables(parts)

    def _database(self, names: tuple[str, ...]) -> duckdb.DuckDBPyConnection:
        """The database of these tables. The last one is kept: a claim is asked about one model after the other."""
        if self._last is None or self._last[0] != names:
            self._last = None  # never two at once
            self._last = names, self._connect(names)
        return self._last[1]

    def _connect(self, names: Iterable[str]) -> duckdb.DuckDBPyConnection:
        """A database of these tables alone, closed to files, networks, extensions and settings.

        One thread adds floats in one order, so that equal tables give equal answers.
        """
        connection = duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "memory_limit": MOST_MEMORY,
                "python_enable_replacements": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        for name in names:
            schema, _, _ = name.rpartition(".")
            if schema:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            connection.register("incoming", self._content(name))
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")
            connection.unregister("incoming")
        for setting in SANDBOX:
            connection.execute(setting)
        return connection

    def ask(self, query: str, model: str | None = None) -> Answer:
        """The one row that a query finds, with `$model` as given.

        Raises QueryError when it is not a single SELECT, can't be run, takes too long, or answers with several rows,
        other columns than `measured`, `low` and `high`, or something else than numbers.
        """
        connection = self._database(tuple(tables_of(query)))
        try:
            statements = connection.extract_statements(query)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise QueryError("it must be one SELECT and nothing else")
            unknown = statements[0].named_parameters - {"model"}
            if unknown:
                raise QueryError(f"it has the parameter ${min(unknown)}, but only $model is given")
            given = {"model": model} if statements[0].named_parameters else None
            stop = threading.Timer(LONGEST_S, connection.interrupt)
            stop.start()
            try:
                cursor = connection.execute(statements[0], given)
                names, rows = [str(column[0]) for column in cursor.description or []], cursor.fetchmany(2)
            finally:
                stop.cancel()
        except duckdb.InterruptException as error:
            raise QueryError(f"it took longer than {LONGEST_S} s") from error
        except duckdb.Error as error:
            raise QueryError(_first_line(error)) from error
        return _answer(names, rows)


def _first_line(error: duckdb.Error) -> str:
    line = str(error).strip().splitlines()[0].strip().rstrip(".!")
    return f"it can't be run ({line})"


def _answer(names: list[str], rows: list[Any]) -> Answer:
    """The answer in a query's rows of so many columns; a QueryError where there is none."""
    if sorted(names) not in (["measured"], ["high", "low", "measured"]):
        raise QueryError(f"its columns are {', '.join(names)}; they must be measured, or measured, low and high")
    if len(rows) > 1:
        raise QueryError("it finds several rows where one is needed")
    if not rows:
        return Answer(None)
    values = {name: _value(name, value) for name, value in zip(names, rows[0], strict=True)}
    answer = Answer(**values)
    if answer.low is not None and answer.high is not None and answer.low > answer.high:
        raise QueryError(f"its interval begins at {answer.low:g}, above its end at {answer.high:g}")
    return answer


def _value(name: str, value: Any) -> float | None:
    """A value as a number, None for null and NaN; a QueryError for anything else."""
    if value is None:
        return None
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError) as error:
        raise QueryError(f"its {name} is {value!r}, which is not a number") from error
    return None if number != number else number
