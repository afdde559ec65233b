"""What the section `reproduce` shows: the configuration, and for each table its files, digests and command."""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from inferometer.errors import InferometerError
from inferometer.files import sha256_of
from inferometer.report.page import Figure
from inferometer.tables_doc import declared_tables, table_of
from inferometer.visible import DIRECTIONS


@dataclass(frozen=True)
class TableFiles:
    """The files of one declared table that one rule writes, in the results: `name` has `*` where they differ."""

    name: str
    meaning: str
    rule: str
    files: int
    rows: int
    columns: int
    command: str


@dataclass(frozen=True)
class Reproduce:
    """The section's data; `digests` are lines that sha256sum reads."""

    configuration: str
    configuration_sha256: str
    tables: list[TableFiles]
    digests: str
    figure: Figure | None


def _escaped(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if DIRECTIONS.intersection(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


class _Dumper(yaml.SafeDumper):
    """Puts strings in quotes that may hold escapes where they have marks for the direction of writing."""


_Dumper.add_representer(str, _escaped)


def as_text(config: Mapping[str, Any]) -> str:
    """The whole configuration as YAML, which `--configfile` takes; what could not be seen on the page is escaped."""
    text = yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return re.sub(f"[{''.join(DIRECTIONS)}]", lambda mark: f"\\u{ord(mark.group()):04X}", text)


def _shape(path: Path) -> tuple[int, int]:
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise InferometerError(f"cannot read the table {path}: {error}; delete it and run again.") from error
    return metadata.num_rows, metadata.num_columns


def _pattern(files: Sequence[str]) -> str:
    """The name that files of equal depth share, with `*` for the parts that differ."""
    parts = zip(*(file.split("/") for file in files), strict=True)
    return "/".join(same[0] if len(set(same)) == 1 else "*" for same in parts)


def command(file: str) -> str:
    """What makes a file of the results anew, its name quoted for a shell."""
    target = shlex.quote(f"results/{file}")
    return f"snakemake {target} --configfile study.yaml --cores 1 --resources gpu=1"


def _tables(results: Path, root: Path, jobs: Sequence[Mapping[str, Any]]) -> tuple[list[TableFiles], list[str]]:
    """The study's tables in the order of its chapters, and the names of all of their files."""
    made = [(file, job["rule"]) for job in jobs for file in job["outputs"] if file.endswith(".parquet")]
    there = sorted((file, rule) for file, rule in made if (results / file).exists())
    declarations = declared_tables(root)
    groups: dict[tuple[int, str, str], list[str]] = {}
    for file, rule in there:
        place = declarations.index(table_of(file, declarations))
        groups.setdefault((place, rule, Path(file).name), []).append(file)
    rows = []
    for (place, rule, _), files in sorted(groups.items()):
        shapes = [_shape(results / file) for file in files]
        rows.append(
            TableFiles(
                _pattern(files),
                declarations[place].table.meaning,
                rule,
                len(files),
                sum(count for count, _ in shapes),
                shapes[0][1],
                command(files[0]),
            )
        )
    return rows, [file for file, _ in there]


def reproduce(config: Mapping[str, Any], results: Path, root: Path, jobs: Sequence[Mapping[str, Any]]) -> Reproduce:
    """The section's data. `root` is the workflow's folder, `jobs` are the study's with their `rule` and `outputs`."""
    text = as_text(config)
    tables, files = _tables(results, root, jobs)
    digests = "".join(f"{sha256_of(results / file)}  results/{file}\n" for file in files)
    graph = results / "provenance/rules.svg"
    figure = Figure(
        graph,
        "The rules of this study. A line joins a rule, on its left, to one that reads what it wrote; lines within a "
        "column leave and arrive on the right. The page reads all summaries and figures, which is not drawn.",
        "Graph of the workflow's rules in four columns: fetch, measure and compute, summarize, draw.",
    )
    return Reproduce(
        text, hashlib.sha256(text.encode()).hexdigest(), tables, digests, figure if graph.exists() else None
    )
