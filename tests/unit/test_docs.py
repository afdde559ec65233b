"""Documentation: what is generated is up to date, links lead somewhere, and the rules it names exist."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferometer.tables import Column, Table
from inferometer.tables_doc import Declaration, declared_tables, document, files_of_tables, rule_outputs

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in (
        ROOT / "README.md",
        ROOT / "SECURITY.md",
        ROOT / "config" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
    if page.exists()
]
RULE_COLUMNS = ("rule", "rules", "rules that run again")


def _without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", _without_fences(text), flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = 0
        while (anchor := f"{slug}-{count}" if count else slug) in found:
            count += 1
        found.add(anchor)
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def _rules_in_tables(text: str) -> Iterator[str]:
    """Names in the columns of Markdown tables whose heading promises rules."""
    columns: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            columns = []
        elif not columns:
            columns = [cell.lower() for cell in _cells(line)]
        else:
            for column, cell in zip(columns, _cells(line), strict=True):
                if column in RULE_COLUMNS:
                    yield from re.findall(r"`(\w+)`", cell)


def _rules_named(text: str) -> set[str]:
    """Names after the words "rule" or "rules", in tables of rules, and names in the manner of rules."""
    lists = re.findall(r"\b[Rr]ules? ((?:`\w+`(?:, and |, | and |\s)?)+)", text)
    names = {name for names in lists for name in re.findall(r"`(\w+)`", names)}
    return names | set(_rules_in_tables(text)) | set(re.findall(r"`((?:fetch|plot|summarize)_\w+)`", text))


def _rules() -> set[str]:
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "rules").glob("*.smk")]
    return {rule for text in texts for rule in re.findall(r"^(?:rule|use rule \w+ as) (\w+)", text, re.MULTILINE)}


def test_results_tables_is_what_the_generator_writes() -> None:
    written = (ROOT / "docs" / "results-tables.md").read_text(encoding="utf-8")
    assert written == document(ROOT), "run: python -m inferometer.tables_doc > docs/results-tables.md"


def test_generator_runs_as_a_command_and_loads_neither_torch_nor_snakemake() -> None:
    code = (
        "import runpy, sys; runpy.run_module('inferometer.tables_doc', run_name='__main__'); "
        "sys.exit(int('torch' in sys.modules or 'snakemake' in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout == document(ROOT).encode()


def test_every_declared_table_is_found() -> None:
    found = {(declaration.file, declaration.name) for declaration in declared_tables(ROOT)}
    declared = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "inferometer").rglob("*.py")
        for name in re.findall(r"^(\w+)(?:: \w+)? = Table\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == declared


def test_rule_outputs_are_all_outputs_of_every_rule() -> None:
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "rules").glob("*.smk")]
    with_output = sum(len(re.findall(r"^    output:$", text, re.MULTILINE)) for text in texts)
    outputs = rule_outputs(ROOT)
    assert outputs.keys() == _rules()
    assert sum(bool(files) for files in outputs.values()) == with_output


def test_a_file_of_no_table_is_noticed() -> None:
    declarations = [declaration for declaration in declared_tables(ROOT) if declaration.name != "WINDOWS"]
    with pytest.raises(ValueError, match=r"rule evaluate writes .*perplexity.parquet, which must be of one"):
        files_of_tables(ROOT, declarations)


def test_a_table_that_no_rule_writes_is_noticed() -> None:
    table = Table("<model>/idle.parquet", "Nothing.", (Column("a", "int64", "a"),), ("a",))
    declarations = [*declared_tables(ROOT), Declaration("IDLE", table, "inferometer/idle.py")]
    with pytest.raises(ValueError, match=r"no rule writes the tables .*IDLE"):
        files_of_tables(ROOT, declarations)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", _without_fences(text))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in _anchors(file.read_text(encoding="utf-8")), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_rules_that_the_documentation_names_exist(page: Path) -> None:
    assert _rules_named(page.read_text(encoding="utf-8")) <= _rules() | {"all"}


def test_a_rule_that_does_not_exist_is_noticed_wherever_it_is_named() -> None:
    text = "The rules `a`, `b` and `c` and the rule `d`; `plot_e`; `other`."
    assert _rules_named(text) == {"a", "b", "c", "d", "plot_e"}
    assert _rules_named("| file | rule |\n|---|---|\n| `x` | `y`, `z` |\n\n`w`") == {"y", "z"}


def test_architecture_names_every_rule_that_writes_something() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert {rule for rule, files in rule_outputs(ROOT).items() if files} <= _rules_named(text)


def test_every_caption_that_a_rule_names_is_there_and_no_other() -> None:
    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "rules").glob("*.smk")]
    named = {name for text in texts for name in re.findall(r'caption="\.\./(report/captions/\w+\.rst)"', text)}
    assert named == {f"report/captions/{path.name}" for path in (ROOT / "report" / "captions").iterdir()}


def test_headings_are_turned_into_anchors_as_on_github() -> None:
    headings = "# Change X: what's next?\n## A `b_c` d\n## A `b_c` d\n"
    assert _anchors(headings) == {"change-x-whats-next", "a-b_c-d", "a-b_c-d-1"}


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(ROOT / "docs"), str(tmp_path / "site")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    pages = {page.stem for page in (tmp_path / "site").glob("*.html")}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= pages


def test_every_file_that_security_names_exists() -> None:
    named = re.findall(r"`((?:inferometer|tests)/[\w./]+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
