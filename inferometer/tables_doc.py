"""Writes docs/results-tables.md: every declared table, its files, the rules that write them, and its columns.

    python -m inferometer.tables_doc > docs/results-tables.md

Declarations are read from the source of the modules and outputs from the text of the rules. So neither torch
nor Snakemake is loaded, and a new table is found without being listed anywhere.
"""

import ast
import builtins
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from inferometer import samples
from inferometer.runs import MACHINE_COLUMNS
from inferometer.tables import Column, Table

ROOT = Path(__file__).parents[1]
ELSEWHERE = {  # files of a table that lie elsewhere than the others
    "summary/runs.parquet": "RUN",
    "<model>/evaluation/<scheme>/sensitivity-run.parquet": "RUN",
    **{f"<model>/profiling/{part}-run.parquet": "RUN" for part in ("latency", "memory", "cache", "baseline")},
    "<model>/generation/samples-run.parquet": "RUN",
    **{f"<model>/attention/{part}-run.parquet": "RUN" for part in ("rounded", "eviction")},
    "fundamentals/digits-run.parquet": "RUN",
    "fundamentals/decoder-run.parquet": "RUN",
}

SHARED = {  # columns of many tables
    **{name: getattr(samples, name) for name in ("SAMPLE", "SAMPLE_OR_REASON", "SPREAD")},
    "MACHINE_COLUMNS": MACHINE_COLUMNS,
}

HEAD = """\
# Tables of results

<!-- Made by `python -m inferometer.tables_doc > docs/results-tables.md`: change the declarations instead. -->

Everything that is measured lies in Parquet files under `results/`, where all paths below start. Each file is
of one of these tables, which is checked when it is written and again when it is read. Rows are sorted by the
key, which identifies a row. A column holds no nulls unless it says so. `<model>`, `<scheme>`, `<corpus>`,
`<question_set>` and `<image_set>` stand for names in the configuration, `<seed>` for that of a rotation. Values have no
unit unless one is stated: in the name (`_s` for seconds, `_ms` for milliseconds, `_bytes`, `_gib`) or in the meaning.

Some tables hold times or memory: RUN; MACHINE and MACHINE_SAMPLES; DECODER_LATENCY and DECODER_SPEED; LATENCY, MEMORY,
CACHE, KERNELS and BASELINE, and what sums them up, PROFILE, KNEES, SLOPES, CACHE_SPEED and KERNEL_SPEED; CACHE_LATENCY
and CACHE_MEMORY, with CACHE_LENGTHS and KV_CACHE. All others are byte-stable: the same inputs and code write the same
bytes on the same kind of machine. How the values are computed is said in [methods.md](methods.md).
"""


@dataclass(frozen=True)
class Declaration:
    """A table, its name in the code, and the file that declares it, relative to the project."""

    name: str
    table: Table
    file: str

    @property
    def chapter(self) -> str:
        """The folder of the module within the package, or its own name where it lies in none."""
        return Path(self.file).with_suffix("").parts[1]


def chapters(root: Path) -> list[str]:
    """The chapters in the order in which the Snakefile includes their rules."""
    snakefile = (root / "Snakefile").read_text(encoding="utf-8")
    return re.findall(r'^include: "rules/(\w+)\.smk"$', snakefile, flags=re.MULTILINE)


def _names_used(statement: ast.stmt) -> set[str]:
    """Names that a statement takes from elsewhere: neither built in nor its own arguments."""
    own = {node.arg for node in ast.walk(statement) if isinstance(node, ast.arg)}
    loaded = (node for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    return {node.id for node in loaded} - own - set(dir(builtins))


def _tables_in(path: Path) -> dict[str, Table]:
    """What a module declares by `Column`, `Table`, `SHARED` and functions of these alone; nothing is imported."""
    names: dict[str, object] = {"Column": Column, "Table": Table, **SHARED}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign | ast.FunctionDef):
            used = _names_used(statement)
            if used and used <= names.keys():
                exec(compile(ast.Module([statement], []), str(path), "exec"), names)
    return {name: value for name, value in names.items() if isinstance(value, Table)}


def declared_tables(root: Path) -> list[Declaration]:
    """Every table that a module of the package declares, chapter by chapter; what lies in none is last."""
    found = [
        Declaration(name, table, path.relative_to(root).as_posix())
        for path in sorted((root / "inferometer").rglob("*.py"))
        for name, table in _tables_in(path).items()
    ]
    places = {chapter: place for place, chapter in enumerate(chapters(root))}
    return sorted(found, key=lambda declaration: places.get(declaration.chapter, len(places)))


def rule_outputs(root: Path) -> dict[str, list[str]]:
    """For each rule the files that it writes, relative to `results/`, with wildcards as `<name>`."""
    outputs: dict[str, list[str]] = {}
    for chapter in chapters(root):
        text = (root / f"rules/{chapter}.smk").read_text(encoding="utf-8")
        _, *parts = re.split(r"^(?:rule |use rule \w+ as )(\w+)(?: with)?:$", text, flags=re.MULTILINE)
        for rule, body in zip(parts[::2], parts[1::2], strict=True):
            section = re.search(r"^    output:\n((?: {8}.*\n|\n)*)", body, flags=re.MULTILINE)
            files = re.findall(r'"results/([^"]+)"', section.group(1) if section else "")
            outputs[rule] = [re.sub(r"\{(\w+)[^}]*\}", r"<\1>", file) for file in files]
    return outputs


def _matches(pattern: str, file: str) -> bool:
    """Whether a file belongs to a table's `path`, where `<name>` is any name and `[...]` may be left out."""
    parts = re.split(r"(<\w+>|\[|\])", pattern)
    symbols = {"[": "(?:", "]": ")?"}
    regex = "".join("[^/]+" if part[:1] == "<" else symbols.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(regex, file) is not None


def table_of(file: str, declarations: list[Declaration]) -> Declaration:
    """The one table whose rows a file under `results/` holds. Raises ValueError where it is of none or of several."""
    elsewhere = next((name for pattern, name in ELSEWHERE.items() if _matches(pattern, file)), None)
    owners = [d for d in declarations if d.name == elsewhere or _matches(d.table.path, file)]
    if len(owners) != 1:
        raise ValueError(f"{file} must be of one table, not of {[owner.name for owner in owners]}")
    return owners[0]


def files_of_tables(root: Path, declarations: list[Declaration]) -> dict[Declaration, list[tuple[str, str]]]:
    """For each table the files that hold its rows, each with the rule that writes it.

    Raises ValueError where a Parquet file belongs to no table or to several, or where no rule writes a table.
    """
    found: dict[Declaration, list[tuple[str, str]]] = {declaration: [] for declaration in declarations}
    for rule, files in rule_outputs(root).items():
        for file in (file for file in files if file.endswith(".parquet")):
            owners = [d for d in declarations if d.name == ELSEWHERE.get(file) or _matches(d.table.path, file)]
            if len(owners) != 1:
                names = [owner.name for owner in owners]
                raise ValueError(f"rule {rule} writes {file}, which must be of one table, not of {names}")
            found[owners[0]].append((file, rule))
    if idle := [declaration.name for declaration, files in found.items() if not files]:
        raise ValueError(f"no rule writes the tables {idle}")
    return found


def _row(column: Column, key: tuple[str, ...]) -> str:
    notes = ["key"] * (column.name in key) + ["may be null"] * column.nullable
    meaning = column.meaning.replace("|", r"\|")
    return f"| `{column.name}` | {column.type} | {', '.join(notes)} | {meaning} |"


def _section(declaration: Declaration, files: list[tuple[str, str]], copies: set[str]) -> list[str]:
    table = declaration.table
    lines = [f"### {declaration.name}", "", table.meaning, ""]
    for file, rule in files:
        copy = Path(file).with_suffix(".csv").as_posix()
        also = f", with a copy in `{copy}`" if copy in copies else ""
        lines.append(f"- `{file}`, written by rule `{rule}`{also}")
    return [
        *lines,
        f"- key: {', '.join(f'`{name}`' for name in table.key)}",
        f"- declared in [`{declaration.file}`](../{declaration.file})",
        "",
        "| column | type | | meaning |",
        "|---|---|---|---|",
        *(_row(column, table.key) for column in table.columns),
        "",
    ]


def document(root: Path) -> str:
    """The text of docs/results-tables.md for the project in the folder `root`."""
    declarations, outputs = declared_tables(root), rule_outputs(root)
    files = files_of_tables(root, declarations)
    copies = {file for written in outputs.values() for file in written if file.endswith(".csv")}
    lines, chapter = [HEAD], ""
    for declaration in declarations:
        if declaration.chapter != chapter:
            chapter = declaration.chapter
            lines += [f"## {chapter.capitalize()}", ""]
        lines += _section(declaration, files[declaration], copies)
    lines += ["## Files that are not tables", "", "| file | rule |", "|---|---|"]
    for rule, written in outputs.items():
        lines += [f"| `{file}` | `{rule}` |" for file in written if not file.endswith((".parquet", ".csv"))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document(ROOT))
