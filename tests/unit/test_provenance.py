"""Where results come from: revision, records of time, the rule graph, digests and commands."""

import hashlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import InferometerError
from inferometer.evaluation.tables import PERPLEXITY, SCHEMES
from inferometer.plotting import save
from inferometer.provenance.figures import COLUMNS, PAGE, columns, plot_rules
from inferometer.provenance.records import by_rule, read_records
from inferometer.provenance.revision import Revision, revision
from inferometer.report.contents import contents
from inferometer.report.machine import STARTED, said_of_time
from inferometer.report.page import render
from inferometer.report.reproduce import reproduce
from inferometer.report.sources import sources
from inferometer.runs import RUN
from inferometer.tables import write_table
from inferometer.tables_doc import declared_tables, table_of
from tests.synthetic import QUESTION_SETS, runs, study, write_results

ROOT = Path(__file__).parents[2]
JOBS: list[dict[str, Any]] = [
    {"rule": "summarize_perplexity", "outputs": [PERPLEXITY.path, "summary/perplexity.csv"], "benchmark": "b/one.tsv"},
    {"rule": "summarize_schemes", "outputs": [SCHEMES.path], "benchmark": "b/two.tsv"},
    {"rule": "summarize_schemes", "outputs": ["summary/accuracy.parquet"], "benchmark": "b/three.tsv"},
    {"rule": "evaluate", "outputs": ["gone/evaluation/fp/perplexity.parquet"], "benchmark": "b/gone.tsv"},
]
HEADING = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def record(folder: Path, name: str, wall_s: float, memory: str, ended: float) -> None:
    """A record as Snakemake leaves it, with a date."""
    path = folder / "b" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADING}{wall_s}\t0:00:01\t{memory}\t1\t1\t1\t1\t1\t1\t1\n", encoding="utf-8")
    os.utime(path, (ended, ended))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with the records of three jobs, of which the last one ran in the latest call."""
    folder = tmp_path_factory.mktemp("provenance") / "results"
    write_results(study(), folder)
    record(folder, "one.tsv", 100.0, "250.5", 1_000_000)
    record(folder, "two.tsv", 20.0, "-", 1_000_060)
    record(folder, "three.tsv", 5.0, "80", 2_000_000)
    (folder / STARTED).parent.mkdir(parents=True)
    (folder / STARTED).touch()
    os.utime(folder / STARTED, (1_500_000, 1_500_000))
    edges = pd.DataFrame([("plot_a", "calibrate"), (PAGE, "plot_a")], columns=["rule", "needs"])
    save(plot_rules(edges), folder / "provenance/rules.svg", 60)
    return folder


@pytest.fixture(scope="module")
def page(results: Path) -> str:
    context = contents(study(), results, ROOT / "report/reported.yaml", JOBS)
    render(ROOT / "report", results / "report.html", context)
    return (results / "report.html").read_text(encoding="utf-8")


def _section(page: str, name: str) -> str:
    [part] = re.findall(rf'<section id="{name}">.*?</section>', page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", part).split())


# --- time --------------------------------------------------------------------------------------------------------


def test_records_are_summed_by_rule(results: Path) -> None:
    records = read_records(JOBS, results, 1_500_000)
    table = by_rule(records).set_index("rule")
    assert list(table.index) == ["summarize_perplexity", "summarize_schemes"], "the longest first; no record, no row"
    figures = table[["jobs", "wall_s", "longest_s", "memory_mib", "ran"]]
    assert figures.to_numpy().tolist() == [[1, 100, 100, 250.5, 0], [2, 25, 20, 80, 1]]


def test_memory_that_snakemake_does_not_see_is_the_job_s_own_account(tmp_path: Path) -> None:
    record(tmp_path, "one.tsv", 100.0, "250.5", 1_000_000)
    record(tmp_path, "two.tsv", 100.0, "-", 1_000_000)
    run = "m/evaluation/fp/run.parquet"
    job = {"rule": "evaluate", "outputs": [run, "m/evaluation/fp/perplexity.parquet"], "benchmark": "b/one.tsv"}
    for peak, device, memory in ((3 * 2**30, "cpu", 3072), (2**20, "cpu", 250.5), (3 * 2**30, "cuda", 250.5)):
        write_table(RUN, runs(["fp"]).head(1).assign(peak_memory_bytes=peak, device=device), tmp_path / run)
        assert read_records([job], tmp_path, None)["memory_mib"].tolist() == [memory]
    write_table(RUN, runs(["fp"]).head(1).assign(peak_memory_bytes=2**20, device="cpu"), tmp_path / run)
    assert read_records([{**job, "benchmark": "b/two.tsv"}], tmp_path, None)["memory_mib"].tolist() == [1]


def test_a_time_below_nothing_is_no_time(tmp_path: Path) -> None:
    record(tmp_path, "one.tsv", -108_000.0, "250.5", 1_000_000)
    record(tmp_path, "two.tsv", 2.0, "250.5", 1_000_000)
    jobs: list[dict[str, Any]] = [
        {"rule": rule, "outputs": [], "benchmark": f"b/{rule}.tsv"} for rule in ("one", "two")
    ]
    table = by_rule(read_records(jobs, tmp_path, None))
    assert table["rule"].tolist() == ["two", "one"]
    assert table[["wall_s", "longest_s"]].isna().to_numpy().tolist() == [[False, False], [True, True]]
    assert said_of_time(table, start_known=False)[0].startswith("2 jobs took 2.0 s of wall time together")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    for text in ("", "s\n", HEADING, f"{HEADING}many\t1\tmuch\n"):
        (tmp_path / "r.tsv").write_text(text, encoding="utf-8")
        with pytest.raises(InferometerError, match=re.escape(f"{tmp_path / 'r.tsv'} is not a record")):
            read_records([{"rule": "a", "outputs": [], "benchmark": "r.tsv"}], tmp_path, None)


def test_what_ran_and_what_was_kept_is_said_only_where_it_is_known(results: Path, page: str) -> None:
    machine = _section(page, "machine")
    assert "3 jobs took 2 min 5 s of wall time together, most of it in summarize_perplexity (80.0 %)" in machine
    assert "In the call that drew this page 1 ran (summarize_schemes); the results of 2 were kept" in machine
    assert "1970-01-12 13:46 UTC" in machine
    assert "1 of 2 ran" in machine
    records = read_records(JOBS, results, None)
    assert said_of_time(by_rule(records), start_known=False)[-1].endswith("is not known.")
    assert said_of_time(by_rule(records.head(0)), start_known=True) == [
        "No records of time were found beside the results."
    ]


# --- revision ----------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    own = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *own, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_revision_is_that_of_the_folder_itself(tmp_path: Path) -> None:
    assert revision(tmp_path) is None
    git(tmp_path, "init")
    assert revision(tmp_path) is None, "nothing was committed yet"
    (tmp_path / "a").write_text("1", encoding="utf-8")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "a")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert revision(tmp_path) == Revision(commit, 0)
    (tmp_path / "a").write_text("2", encoding="utf-8")
    (tmp_path / "b").touch()
    assert revision(tmp_path) == Revision(commit, 2)
    (tmp_path / "copy").mkdir()
    assert revision(tmp_path / "copy") is None, "a folder within another repository has none of its own"


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision(ROOT) is None


# --- the rule graph ----------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> pd.DataFrame:
    """Rules of every kind that need some of those before them, and a page that needs them all."""
    names = [f"{kind or 'measure'}_{number}" for kind in COLUMNS for number in range(draw(st.integers(1, 5)))]
    pairs = [(rule, need) for place, rule in enumerate(names) for need in names[:place] if draw(st.booleans())]
    return pd.DataFrame([*pairs, *((PAGE, name) for name in names)], columns=["rule", "needs"])


@settings(max_examples=30)
@given(graphs())
def test_every_rule_stands_once_right_of_or_below_what_it_needs(rules: pd.DataFrame) -> None:
    found = columns(rules)
    spots = {rule: (x, y) for x, column in enumerate(found) for y, rule in enumerate(column)}
    assert sorted(rule for column in found for rule in column) == sorted(set(rules["needs"]))
    edges = zip(rules["rule"], rules["needs"], strict=True)
    assert all(spots[need] < spots[rule] for rule, need in edges if rule != PAGE)


def test_the_graph_is_drawn_the_same_way_twice(tmp_path: Path) -> None:
    rules = pd.DataFrame(
        [("plot_a", "calibrate"), ("calibrate", "fetch_model"), (PAGE, "plot_a")], columns=["rule", "needs"]
    )
    for name in ("one.svg", "two.svg"):
        save(plot_rules(rules.sample(frac=1, random_state=len(name))), tmp_path / name, 60)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


# --- digests and commands ----------------------------------------------------------------------------------------


def test_digests_are_those_that_sha256sum_finds(results: Path) -> None:
    found = reproduce(study(), results, ROOT, JOBS)
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict"],
        input=found.digests,
        cwd=results.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert checked.stdout.count(": OK\n") == 3
    assert found.configuration_sha256 == hashlib.sha256(found.configuration.encode()).hexdigest()
    assert yaml.safe_load(found.configuration) == study()


def test_every_table_has_its_meaning_its_size_and_its_command(results: Path) -> None:
    tables = {table.name: table for table in reproduce(study(), results, ROOT, JOBS).tables}
    assert set(tables) == {PERPLEXITY.path, SCHEMES.path, "summary/accuracy.parquet"}
    own = tables[SCHEMES.path]
    frame = pd.read_parquet(results / SCHEMES.path)
    assert (own.rows, own.columns) == frame.shape
    assert (own.meaning, own.rule, own.files) == (SCHEMES.meaning, "summarize_schemes", 1)
    assert own.command == f"snakemake results/{SCHEMES.path} --configfile study.yaml --cores 1 --resources gpu=1"


def test_a_file_belongs_to_the_table_that_declares_it() -> None:
    declarations = declared_tables(ROOT)
    for file, name in (
        ("m/evaluation/w8a8/perplexity.parquet", "WINDOWS"),
        ("m/kv_cache/static-4/perplexity.parquet", "CACHE_PERPLEXITY"),
        ("m/evaluation/w4a4/sensitivity-run.parquet", "RUN"),
        ("summary/runs.parquet", "RUN"),
    ):
        assert table_of(file, declarations).name == name
    with pytest.raises(ValueError, match="must be of one table"):
        table_of("nothing.parquet", declarations)


def test_all_that_is_read_is_listed_with_its_uses(results: Path) -> None:
    found = {(source.kind, source.name): source for source in sources(study(), results)}
    assert set(found) == {("text", "prose"), ("images", "sketches"), *(("questions", name) for name in QUESTION_SETS)}
    assert found["text", "prose"].uses == ["calibration", "evaluation", "KV cache", "generation", "attention"]
    assert found["text", "prose"].sha256 is None
    assert found["images", "sketches"].origin == "package scikit-learn"


def test_the_page_shows_revision_versions_and_commands(page: str) -> None:
    known = revision(ROOT)
    machine = _section(page, "machine")
    assert (f"git revision {known.commit}" if known else "revision not known") in machine
    assert re.search(r"snakemake \d+\.\d+", machine)
    assert "pyarrow" in machine
    assert 'alt="Graph of the workflow&#39;s rules' in page
    assert f"snakemake results/{SCHEMES.path} --configfile study.yaml" in _section(page, "reproduce")
