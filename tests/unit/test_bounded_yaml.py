"""YAML files made to do harm, and the command that checks a configuration before Snakemake sees it."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from inferometer.bounded_yaml import DEEPEST, LARGEST, TOO_DEEP, parts_of_value, read_yaml, too_much
from inferometer.check import main
from inferometer.claims.ledger import read_claims
from inferometer.compare.folder import Folder
from inferometer.config import ConfigError, read_study, validate
from inferometer.errors import InferometerError
from inferometer.report.__main__ import main as draw

ROOT = Path(__file__).parents[2]


def bomb(line: str) -> str:
    """Sixty lines of which each is made of three of the line before."""
    lines = [line.format(place=place, before=place - 1) for place in range(1, 60)]
    return "\n".join(["x0: &x0 {k: lol}", *lines]) + "\n"


HOSTILE = {
    "lists of aliases": (bomb("x{place}: &x{place} [*x{before}, *x{before}, *x{before}]"), "nested more than 32"),
    "mappings of aliases": (bomb("x{place}: &x{place} {{a: *x{before}, b: *x{before}}}"), "nested more than 32"),
    "merged aliases": (bomb("x{place}: &x{place} {{<<: [*x{before}, *x{before}, *x{before}]}}"), "nested more than 32"),
    "shallow aliases": (
        "\n".join(["- &a " + "x" * 1000, "- &b [" + ", ".join(["*a"] * 1000) + "]", "- [*b, *b]"]),
        "stands for more than 1,000,000 characters and values",
    ),
    "what holds itself": ("study: &a {title: *a}", "nested more than 32"),
    "a list that holds itself": ("claims: &a [*a]", "nested more than 32"),
    "a deep list": ("claims: " + "[" * 5000 + "]" * 5000, "nested more than 32"),
    "a tag that runs": ("study: !!python/object/apply:os.system [touch canary]", "not plain YAML at line 1"),
    "a number of thousands of digits": ("figures: {dpi: " + "9" * 5000 + "}", "Exceeds the limit"),
    "a day that never was": ("study: {title: 2020-99-99}", "month must be in 1..12"),
    "a word as a number": ("study: {title: !!int word}", "invalid literal"),
    "a word as yes or no": ("study: {title: !!bool word}", "KeyError"),
    "a key that is a list": ("? [a]\n: b", "not plain YAML"),
    "a control character": ("study: {title: \a}", "not plain YAML"),
    "more than there may be": ("# " + "x" * LARGEST, "stands for more than"),
}


def refusals(path: Path) -> dict[str, Callable[[], object]]:
    """Everything that reads YAML from elsewhere."""
    folder = path.parent / "results"
    return {
        "alone": lambda: read_yaml(path, "the file"),
        "study": lambda: read_study(ROOT, path),
        "claims": lambda: read_claims([path]),
        "compare": lambda: Folder(folder).configuration,
    }


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_yaml_is_refused_at_once_whoever_reads_it(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text, told = HOSTILE[what]
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    (tmp_path / "results" / "summary").mkdir(parents=True)
    (tmp_path / "results" / "summary" / "any.parquet").touch()
    (tmp_path / "results" / "provenance").mkdir()
    (tmp_path / "results" / "provenance" / "configuration.yaml").write_text(text, encoding="utf-8")
    for read in refusals(path).values():
        with pytest.raises(InferometerError) as caught:
            read()
        assert told in str(caught.value)
        assert str(caught.value).isprintable()
    for command, arguments in ((main, [str(path)]), (draw, ["results", "--config", str(path)])):
        assert command(arguments) == 1
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("path", "told"),
    [("/dev/zero", "is not a file"), (".", "is not a file"), ("absent", "No such file"), ("a" * 5000, "too long")],
)
def test_what_is_no_file_is_not_read(path: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InferometerError, match=told):
        read_yaml(Path(path), "the file")


def test_aliases_and_merges_that_a_person_writes_are_read_as_ever(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: [2, 3]}\nb: {<<: *a, x: 4}\nc: [*a, *a]\nd: " + "[" * (DEEPEST - 3) + "]" * (DEEPEST - 3)
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    assert read_yaml(tmp_path / "own.yaml", "the file") == yaml.safe_load(text)


def test_what_snakemake_would_run_as_a_program_is_refused_unrun(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("__use_yte__: true\nstudy:\n  title: ?open('canary', 'w')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown configuration key `__use_yte__`"):
        validate(read_study(ROOT, path), ROOT, tmp_path)


def test_the_command_accepts_what_can_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("study: {title: My study}\n", encoding="utf-8")
    assert main([str(path)]) == 0
    assert "can be run" in capsys.readouterr().out
    for ready in ("full", "smollm"):
        assert main([str(ROOT / "config" / f"{ready}.yaml")]) == 0


@pytest.mark.parametrize("levels", [100, 100_000])
def test_time_goes_with_what_is_written_and_not_with_what_it_stands_for(levels: int, tmp_path: Path) -> None:
    value: list[object] = ["end"]
    for _ in range(levels):
        value = [value, value]
    started = time.process_time()
    assert too_much(value, parts_of_value) == TOO_DEEP
    assert time.process_time() - started < 10  # and not two to the power of the levels
