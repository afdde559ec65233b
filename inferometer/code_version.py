"""A digest of the code that a job runs, blind to comments, docstrings and layout.

Snakemake's own code trigger compares modification times and never looks into imported modules. This digest
covers a script and every inferometer module that it imports, however deep, so that a changed function reruns
exactly its users and a fresh checkout reruns nothing.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = "inferometer"


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def _without_docstrings(path: Path) -> str:
    tree = ast.parse(ast.unparse(_tree(path)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _imported_modules(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module_file(root: Path, module: str) -> Path | None:
    if module.split(".")[0] != PACKAGE:
        return None
    base = root.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@cache
def _imported_files(path: Path, root: Path) -> list[Path]:
    """The files of the package that running one file imports directly, and those of packages on the way."""
    files = []
    for module in _imported_modules(_tree(path)):
        parts = module.split(".")
        names = (".".join(parts[: depth + 1]) for depth in range(len(parts)))
        files += [file for name in names if (file := _module_file(root, name))]
    return files


def modules_of(script: Path, root: Path) -> list[Path]:
    """The script and every file of the package that it imports, transitively, sorted by path.

    Package `__init__` files on the way are included, since importing a module runs them.
    """
    found: set[Path] = set()
    queue = [script]
    while queue:
        path = queue.pop()
        if path in found:
            continue
        found.add(path)
        queue.extend(_imported_files(path, root))
    return sorted(found)


@cache
def code_version(script: Path, root: Path, *, data: tuple[Path, ...] = ()) -> str:
    """Digest (16 hexadecimal digits) of a script, the modules it imports, and `data` files byte by byte.

    `root` is the folder that holds the package. Relative imports are not followed: the package has none,
    which a test keeps so.
    """
    digest = hashlib.sha256()
    for path in modules_of(script, root):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(_without_docstrings(path).encode())
    for path in sorted(data):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
