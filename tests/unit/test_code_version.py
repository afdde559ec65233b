"""The digest of a job's code: blind to what cannot change a result, awake to everything that can."""

import ast
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inferometer import code_version as module
from inferometer.code_version import code_version, modules_of

ROOT = Path(__file__).parents[2]

SCRIPT = '''"""What the script does."""

from inferometer.upper import describe
import inferometer.parts.first as first


def main() -> str:
    """Say it."""
    return describe(first.VALUE)  # a comment
'''
FILES = {
    "inferometer/__init__.py": '"""A package."""\n',
    "inferometer/upper.py": "from inferometer import middle\ndef describe(x): return middle.double(x)\n",
    "inferometer/middle.py": "import inferometer.lower as low\ndef double(x): return low.FACTOR * x\n",
    "inferometer/lower.py": "FACTOR = 2\n",
    "inferometer/parts/__init__.py": "COUNT = 1\n",
    "inferometer/parts/first.py": "VALUE = 5\n",
    "inferometer/parts/second.py": "VALUE = 6\n",
    "inferometer/lonely.py": "VALUE = 7\n",
    "workflow/scripts/say.py": SCRIPT,
}


@pytest.fixture
def digest(tmp_path: Path) -> Callable[..., str]:
    """A small package on disk, and a function that takes its script's digest as a new process would."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def fresh(*data: str) -> str:
        for cached in (module._tree, module._without_docstrings, module._imported_files):
            cached.cache_clear()
        code_version.cache_clear()
        return code_version(
            tmp_path / "workflow/scripts/say.py", tmp_path, data=tuple(tmp_path / name for name in data)
        )

    return fresh


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("workflow/scripts/say.py", "  # a comment", "  # another comment"),
        ("workflow/scripts/say.py", "  # a comment", ""),
        ("workflow/scripts/say.py", '"""What the script does."""', '"""Something else."""'),
        ("workflow/scripts/say.py", '    """Say it."""\n', ""),
        ("workflow/scripts/say.py", "\n\n\ndef main", "\n\n\n\n\ndef main"),
        (
            "workflow/scripts/say.py",
            "describe(first.VALUE)",
            "(\n        describe(\n            first.VALUE,\n        )\n    )",
        ),
        ("inferometer/lower.py", "FACTOR = 2", "# two\nFACTOR   =   0x2"),
        ("inferometer/__init__.py", '"""A package."""', '"""The package."""'),
    ],
)
def test_digest_ignores_comments_docstrings_blank_lines_and_layout(
    digest: Callable[..., str], tmp_path: Path, file: str, old: str, new: str
) -> None:
    before = digest()
    _replace(tmp_path / file, old, new)
    assert digest() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("workflow/scripts/say.py", "describe(first.VALUE)", "describe(first.VALUE + 1)"),
        ("workflow/scripts/say.py", "def main() ", "def main(_=None) "),
        ("inferometer/upper.py", "double(x)", "double(-x)"),
        ("inferometer/middle.py", "low.FACTOR * x", "x * low.FACTOR"),
        ("inferometer/lower.py", "FACTOR = 2", "FACTOR = 3"),
        ("inferometer/lower.py", "FACTOR = 2", "FACTOR = 2.0"),
        ("inferometer/parts/first.py", "VALUE = 5", "VALUE = '5'"),
        ("inferometer/parts/__init__.py", "COUNT = 1", "COUNT = 2"),
        ("inferometer/__init__.py", '"""A package."""', "import sys"),
    ],
)
def test_digest_changes_with_an_expression_in_the_script_or_in_any_module_below_it(
    digest: Callable[..., str], tmp_path: Path, file: str, old: str, new: str
) -> None:
    before = digest()
    _replace(tmp_path / file, old, new)
    assert digest() != before


@pytest.mark.parametrize("file", ["inferometer/lonely.py", "inferometer/parts/second.py"])
def test_digest_ignores_modules_that_are_not_imported(digest: Callable[..., str], tmp_path: Path, file: str) -> None:
    before = digest()
    _replace(tmp_path / file, "VALUE", "OTHER")
    assert digest() == before


def test_digest_changes_when_a_further_module_is_imported(digest: Callable[..., str], tmp_path: Path) -> None:
    before = digest()
    _replace(
        tmp_path / "inferometer/lower.py",
        "FACTOR = 2",
        "FACTOR = 2\n\n\ndef f():\n    import inferometer.lonely\n",
    )
    with_import = digest()
    assert with_import != before
    _replace(tmp_path / "inferometer/lonely.py", "VALUE = 7", "VALUE = 8")
    assert digest() != with_import


def test_a_string_that_is_not_a_docstring_counts(digest: Callable[..., str], tmp_path: Path) -> None:
    before = digest()
    _replace(tmp_path / "inferometer/lower.py", "FACTOR = 2", "FACTOR = 2\nNAME = 'two'")
    named = digest()
    _replace(tmp_path / "inferometer/lower.py", "'two'", "'deux'")
    assert len({before, named, digest()}) == 3


def test_data_files_count_byte_by_byte_and_by_name_but_not_by_order(digest: Callable[..., str], tmp_path: Path) -> None:
    first, second = tmp_path / "report/a.css", tmp_path / "report/b.css"
    first.parent.mkdir()
    first.write_bytes(b"a { color: red }")
    second.write_bytes(b"b {}")
    both = digest("report/a.css", "report/b.css")
    assert both == digest("report/b.css", "report/a.css")
    assert len({both, digest("report/a.css"), digest("report/b.css"), digest()}) == 4
    first.write_bytes(b"a { color: red } ")
    assert digest("report/a.css", "report/b.css") != both


def test_digest_does_not_depend_on_where_the_project_lies(digest: Callable[..., str], tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    for folder in ("inferometer", "workflow"):
        shutil.copytree(tmp_path / folder, moved / folder)
    assert code_version(moved / "workflow/scripts/say.py", moved) == digest()


def test_modules_are_found_through_every_way_to_import_and_through_cycles(
    digest: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "inferometer/lower.py").write_text("from inferometer.upper import describe\nFACTOR = 2\n")
    digest()
    found = modules_of(tmp_path / "workflow/scripts/say.py", tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "inferometer/__init__.py",
        "inferometer/lower.py",
        "inferometer/middle.py",
        "inferometer/parts/__init__.py",
        "inferometer/parts/first.py",
        "inferometer/upper.py",
        "workflow/scripts/say.py",
    ]


def _own_python_files() -> list[Path]:
    files = [path for folder in ("inferometer", "workflow/scripts") for path in (ROOT / folder).rglob("*.py")]
    assert files
    return sorted(files)


def test_no_module_uses_relative_or_star_imports_which_the_digest_would_not_follow() -> None:
    for path in _own_python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                assert node.level == 0, f"{where} imports relatively"
                assert all(alias.name != "*" for alias in node.names), f"{where} imports with a star"


def test_no_module_imports_by_a_computed_name_which_the_digest_would_not_see() -> None:
    for path in _own_python_files():
        text = path.read_text(encoding="utf-8")
        assert "import_module" not in text, path.relative_to(ROOT)
        assert "__import__" not in text, path.relative_to(ROOT)
