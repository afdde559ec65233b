"""A page of what is there: sections without results say why, nothing else breaks, and a whole study must be whole."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferometer.capacity.tables import STORED
from inferometer.chapters import CHAPTERS, WEIGHTLESS
from inferometer.config import validate
from inferometer.errors import InferometerError
from inferometer.evaluation.tables import ACCURACY, GAINS, SCHEMES
from inferometer.kv_cache.tables import KV_CACHE
from inferometer.profiling.tables import PROFILE
from inferometer.report import contents as contents_module
from inferometer.report.__main__ import main
from inferometer.report.contents import contents
from inferometer.report.page import render
from inferometer.report.reading import without_rows
from inferometer.rotation.tables import BASIS
from inferometer.runs import RUN
from inferometer.tables import Table, write_table
from tests.synthetic import MEASURED, SECTIONS, SEED, SHAPES, Config, study, write_results
from tests.unit.test_report import Parsed

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "report"

# One file of each section, and the sections that can't do without it.
NEEDED = {
    "summary/schemes.parquet": {"decision", "evaluation"},
    "summary/ranges.parquet": {"calibration", "attention"},
    f"{MEASURED}/smoothing/w8a8-smooth/sites.parquet": {"smoothing"},
    f"{MEASURED}/rotation/{SEED}/paths.parquet": {"rotation"},
    "machine.parquet": {"capacity"},
    "summary/profiling.parquet": {"profiling"},
    "summary/kv_cache_pairs.parquet": {"kv_cache"},
    f"{MEASURED}/generation/samples.parquet": {"generation"},
    "summary/eviction.parquet": {"attention"},
    "fundamentals/decoder_checks.parquet": {"fundamentals"},
    "summary/runs.parquet": {"machine"},
}


USED_BY = {  # for their speeds, and for what marks say of schemes
    "summary/runs.parquet": {"evaluation", "profiling"},
    "summary/profiling.parquet": {"decision"},
    "summary/schemes.parquet": {"smoothing", "rotation", "kv_cache", "profiling"},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a whole study; tests draw from copies."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    write_results(study(), folder)
    return folder


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy that the test may take from and add to."""
    shutil.copytree(finished, tmp_path / "results", copy_function=os.link)
    return tmp_path / "results"


def drawn(config: Config, results: Path, *, complete: bool) -> str:
    """The page of a study, whose tags match and whose sections are all there."""
    page = results / "report.html"
    render(TEMPLATES, page, contents(config, results, TEMPLATES / "reported.yaml"), complete=complete)
    text = page.read_text(encoding="utf-8")
    parsed = Parsed(text)
    assert parsed.faults == []
    assert tuple(attributes["id"] for attributes in parsed.named("section")) == SECTIONS
    return text


def sections(page: str) -> dict[str, str]:
    """Each section as it is written."""
    return dict(re.findall(r'(?s)<section id="(\w+)">(.*?)</section>', page))


def absent(page: str) -> dict[str, str]:
    """What sections say that show nothing."""
    pattern = r'(?s)\s*<h2><a [^<]*</a></h2>\s*<p class="absent">(.*)</p>\s*'
    found = {name: re.fullmatch(pattern, part) for name, part in sections(page).items()}
    return {name: match.group(1) for name, match in found.items() if match}


def replaced(path: Path, table: Table) -> None:
    """The file without its rows; a copy of its own, since the other is shared."""
    path.unlink()
    write_table(table, without_rows(table), path)


@pytest.fixture(scope="module")
def whole(finished: Path) -> dict[str, str]:
    """The sections of the whole study."""
    page = drawn(study(), finished, complete=True)
    assert absent(page) == {}
    return sections(page)


@pytest.mark.parametrize("file", NEEDED)
def test_a_missing_table_silences_its_section_and_no_other(file: str, results: Path, whole: dict[str, str]) -> None:
    (results / file).unlink()
    page = drawn(study(), results, complete=False)
    notes = absent(page)
    assert set(notes) == NEEDED[file]
    assert all(str(results / file) in note for note in notes.values())
    targets = {"machine": "", "decision": "snakemake evaluation "}
    assert all(targets.get(name, f"snakemake {name} ") in note for name, note in notes.items())
    changed = {name for name, part in sections(page).items() if part != whole[name]} - set(notes)
    assert changed <= {"answers"} | USED_BY.get(file, set())
    with pytest.raises(InferometerError, match=rf"{file} is missing"):
        drawn(study(), results, complete=True)


def test_a_damaged_table_silences_its_section(results: Path) -> None:
    file = results / "summary/kv_cache.parquet"
    file.unlink()
    file.write_bytes(b"PAR1 and nothing else")
    notes = absent(drawn(study(), results, complete=False))
    assert set(notes) == {"decision", "kv_cache"}
    assert f"{file}: " in notes["kv_cache"]
    with pytest.raises(InferometerError, match="cannot read the table"):
        drawn(study(), results, complete=True)


@pytest.mark.parametrize(
    ("file", "table", "section"),
    [
        ("summary/schemes.parquet", SCHEMES, "evaluation"),
        ("summary/profiling.parquet", PROFILE, "profiling"),
        ("summary/kv_cache.parquet", KV_CACHE, "kv_cache"),
        ("summary/runs.parquet", RUN, "machine"),
    ],
)
def test_an_empty_table_is_no_fault_and_is_said(file: str, table: Table, section: str, results: Path) -> None:
    replaced(results / file, table)
    notes = absent(drawn(study(), results, complete=True))
    assert set(notes) == {section} | ({"decision"} if section == "evaluation" else set())
    assert f"{results / file} has no rows" in notes[section]
    assert "snakemake" not in notes[section], "running it again would not help"


def test_tables_that_a_small_study_leaves_empty_silence_nothing(results: Path) -> None:
    for file, table in (
        ("summary/gains.parquet", GAINS),
        ("summary/accuracy.parquet", ACCURACY),
        ("capacity/stored.parquet", STORED),
        (f"{MEASURED}/rotation/{SEED}/basis.parquet", BASIS),
    ):
        replaced(results / file, table)
    assert absent(drawn(study(), results, complete=True)) == {}


def test_an_empty_folder_still_makes_a_page(tmp_path: Path) -> None:
    page = drawn(study(), tmp_path, complete=False)
    assert set(absent(page)) == set(SECTIONS) - {"answers", "reproduce", "formulas", "glossary"}
    answers = sections(page)["answers"]
    assert all(title in answers for title in ("Evaluation", "Profiling", "KV cache", "Fundamentals"))


def test_results_of_another_study_are_said_to_be_so(results: Path) -> None:
    config = study()
    config["models"]["other"] = config["models"][MEASURED]
    config["study"]["models"] = [MEASURED, "other"]
    notes = absent(drawn(config, results, complete=False))
    assert f"{results}/other/sources/model.json" in notes["sources"]
    assert "do not fit the configuration" in notes["generation"] or "is missing" in notes["generation"]
    assert "kv_cache" not in notes, "this one shows what it has"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_study_of_one_chapter_shows_it_and_says_what_it_left_out(chapter: str, results: Path) -> None:
    for other in set(CHAPTERS) - {chapter}:  # nothing is taken from them
        for folder in (results / other, results / MEASURED / other, results / SHAPES / other):
            shutil.rmtree(folder, ignore_errors=True)
    if chapter != "evaluation":
        for file in ("schemes", "accuracy", "gains", "ranges"):
            (results / f"summary/{file}.parquet").unlink()
    config = study()
    config["study"]["chapters"] = [chapter]
    validate(config, ROOT, results)
    page = drawn(config, results, complete=True)
    own = {"decision", "evaluation", "calibration", "smoothing", "rotation"} if chapter == "evaluation" else {chapter}
    notes = absent(page)
    assert set(notes) == set(SECTIONS) - own - {
        "answers",
        "claims",
        "machine",
        "sources",
        "reproduce",
        "formulas",
        "glossary",
    }
    assert all("study.chapters" in note for note in notes.values())
    assert sections(page)["answers"].count("This study leaves the chapter out") == len(CHAPTERS) - 1


def test_a_study_of_random_weights_alone_shows_shapes_and_speeds(results: Path) -> None:
    config = study()
    config["study"] |= {"models": [SHAPES], "chapters": list(WEIGHTLESS)}
    validate(config, ROOT, results)
    notes = absent(drawn(config, results, complete=True))
    ours = {"decision", "evaluation", "calibration", "smoothing", "rotation", "kv_cache", "generation", "attention"}
    assert set(notes) == ours


def test_a_study_of_the_float_model_alone_is_whole(tmp_path: Path) -> None:
    config = study(schemes=("fp",))
    write_results(config, tmp_path)
    page = drawn(config, tmp_path, complete=True)
    assert absent(page) == {}
    assert "No scheme of this study smooths." in sections(page)["smoothing"]


def test_a_missing_figure_is_named_in_its_place(results: Path) -> None:
    figure = results / "summary/pareto.svg"
    figure.unlink()
    page = drawn(study(), results, complete=False)
    assert absent(page) == {}
    assert f"<code>{figure}</code> is missing" in sections(page)["evaluation"]
    with pytest.raises(InferometerError, match=rf"the figure {figure} is missing; .* draws it\."):
        drawn(study(), results, complete=True)


def _templates(folder: Path, section: str, change: Callable[[str], str]) -> Path:
    shutil.copytree(TEMPLATES, folder)
    path = folder / f"{section}.html.j2"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text + "\n{{ nothing_of_the_kind }}", "'nothing_of_the_kind' is undefined"),
        (lambda text: text + "\n{% if %}", "line"),
        (lambda text: "{{ roofline.nothing }}" + text, "line 1"),
    ],
)
def test_a_faulty_template_is_named_with_its_line(
    change: Callable[[str], str], said: str, results: Path, tmp_path: Path
) -> None:
    templates = _templates(tmp_path / "templates", "profiling", change)
    context = contents(study(), results, TEMPLATES / "reported.yaml")
    with pytest.raises(InferometerError, match=r"profiling\.html\.j2, line \d+: .*; mend the template") as refusal:
        render(templates, tmp_path / "page.html", context)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "page.html").exists()


def test_a_fault_of_the_program_stays_one_where_results_must_be_whole(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: Any) -> Any:
        raise ZeroDivisionError("by no means")

    monkeypatch.setattr(contents_module, "capacity", faulty)
    notes = absent(drawn(study(), results, complete=False))
    assert set(notes) == {"capacity"}
    assert "ZeroDivisionError: by no means" in notes["capacity"]
    with pytest.raises(ZeroDivisionError):
        drawn(study(), results, complete=True)


def test_the_command_draws_from_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    overlay = {"study": {"title": "Half a <study>", "chapters": ["profiling"]}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    assert main(["results", "--config", "study.yaml", "-o", "page.html"]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Half a &lt;study&gt;" in page
    assert "results/summary/profiling.parquet is missing" in " ".join(page.split())
    said = capsys.readouterr().out
    assert "profiling: The table results/summary/profiling.parquet is missing." in said
    assert said.endswith("wrote page.html\n")


@pytest.mark.parametrize(
    ("overlay", "results", "sentence"),
    [
        ("study: {chapters: [poetry]}", ".", "`study.chapters[0]` is 'poetry'; it must be one of evaluation, capacity"),
        ("study: {chapters: []}", ".", "`study.chapters` is a list of 0, which is too short; list at least 1"),
        ("- a list", ".", "is no mapping of keys"),
        ("study: {title: 'open", ".", "cannot read the configuration study.yaml"),
        ("{}", "nowhere", "nowhere is no folder of results"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    overlay: str, results: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(overlay, encoding="utf-8")
    assert main([results, "--config", "study.yaml"]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("chapter", sorted(set(CHAPTERS) - set(WEIGHTLESS)))
def test_random_weights_alone_are_refused_for_chapters_that_weigh(chapter: str, tmp_path: Path) -> None:
    config = study()
    config["study"] |= {"models": [SHAPES], "chapters": ["capacity", chapter]}
    with pytest.raises(InferometerError, match=rf"`study\.models` names only shapes .* can't measure {chapter};"):
        validate(config, ROOT, tmp_path)


def test_schema_and_chapters_name_the_same() -> None:
    schema = yaml.safe_load((ROOT / "config/schema.yaml").read_text(encoding="utf-8"))
    assert tuple(schema["properties"]["study"]["properties"]["chapters"]["items"]["enum"]) == CHAPTERS
