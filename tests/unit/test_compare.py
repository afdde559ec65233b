"""The comparison of two runs: planted changes are found, chance is not, and damaged folders end in one sentence."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from inferometer.compare.__main__ import ROOT, main
from inferometer.compare.comparison import Comparison, compare, summaries
from inferometer.compare.folder import Folder
from inferometer.compare.paired import paired_difference
from inferometer.compare.rows import Change, is_timing
from inferometer.errors import InferometerError
from inferometer.evaluation.choices_summary import summarize_accuracy
from inferometer.evaluation.schemes_summary import summarize_schemes
from inferometer.evaluation.summary import summarize_gains, summarize_perplexity
from inferometer.evaluation.tables import ACCURACY, CHOICES, FIDELITY, GAINS, PERPLEXITY, SCHEMES, WINDOWS
from inferometer.manifest import CheckpointFile, Manifest
from inferometer.profiling.tables import PROFILE
from inferometer.report.reproduce import as_text
from inferometer.runs import RUN
from inferometer.tables import Table, read_table, write_table
from inferometer.tables_doc import HEAD
from tests.synthetic import BASES, MEASURED, QUESTION_SETS, cells, scores, study, write_results
from tests.synthetic import WINDOWS as WINDOW_COUNT

STUDIED = ("fp", "w8a8", "w8a8-smooth", "int8-bnb")
SCHEME, FACTOR = "w8a8", 1.02
GAINED = {scheme: base for scheme, base in BASES.items() if {scheme, base} <= set(STUDIED)}
Doctor = Callable[[Path], None]


def write_evaluation(results: Path, nll: Callable[[str, pd.Series], pd.Series] = lambda _, nll: nll) -> None:
    """The raw tables of the evaluation and their summaries, with every scheme's nll as `nll` makes it."""
    windows = {cell: table.assign(nll=nll(cell[1], table["nll"])) for cell, table in scores(STUDIED).items()}
    measured = cells(STUDIED)
    for (model, scheme), table in windows.items():
        folder = results / model / "evaluation" / scheme
        write_table(WINDOWS, table, folder / "perplexity.parquet")
        write_table(FIDELITY, measured[model, scheme].fidelity, folder / "fidelity.parquet")
        write_table(CHOICES, measured[model, scheme].choices, folder / "choices.parquet")
    perplexity = summarize_perplexity(windows, "fp")
    choices = {cell: found.choices for cell, found in measured.items()}
    write_table(PERPLEXITY, perplexity, results / PERPLEXITY.path)
    write_table(SCHEMES, summarize_schemes(measured, perplexity, "fp"), results / SCHEMES.path)
    write_table(GAINS, summarize_gains(windows, GAINED, "fp"), results / GAINS.path)
    write_table(ACCURACY, summarize_accuracy(choices, "fp"), results / ACCURACY.path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with the raw tables of its evaluation."""
    results = tmp_path_factory.mktemp("compare") / "results"
    config = study(schemes=STUDIED)
    write_results(config, results)
    write_evaluation(results)
    for name in ("corpora/prose", *(f"questions/{name}" for name in QUESTION_SETS)):
        path = results / f"sources/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    manifest = Manifest.read(results / MEASURED / "sources/model.json")
    fields = manifest.__dict__ | {"files": (CheckpointFile("tokenizer.json", 1, "a" * 64),)}
    Manifest(**fields).write(results / MEASURED / "sources/model.json")
    (results / "provenance").mkdir()
    (results / "provenance/configuration.yaml").write_text(as_text(config), encoding="utf-8")
    return results


@pytest.fixture
def doctored(finished: Path, tmp_path: Path) -> Callable[[Doctor], Comparison]:
    """What the comparison says of the finished folder and a copy of it with some change."""

    def against(change: Doctor) -> Comparison:
        copy = tmp_path / "other"
        shutil.copytree(finished, copy)
        change(copy)
        return compare(finished, copy, ROOT)

    return against


def beyond(found: Comparison) -> dict[tuple[str, str, str], Change]:
    """What changed beyond its interval, by table, scheme and quantity."""
    return {
        (
            change.table,
            match.group(1) if (match := re.search(r"scheme ([^,]+)", change.row)) else "",
            change.quantity,
        ): change
        for change in found.of("paired", "intervals")
    }


def rewritten(table: Table, file: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Doctor:
    """A folder in which the rows of one file are others."""
    return lambda folder: write_table(table, change(read_table(table, folder / file)), folder / file)


def noise(scale: float) -> pd.Series:
    """Noise of every window whose mean is none."""
    drawn = np.random.default_rng(3).normal(0, scale, WINDOW_COUNT)
    return pd.Series(drawn - drawn.mean())


# --- what changed ------------------------------------------------------------------------------------------------


def test_a_run_differs_in_nothing_from_itself(doctored: Callable[[Doctor], Comparison]) -> None:
    found = doctored(lambda _: None)
    assert found.differences.changes == []
    assert found.differences.notes == []
    assert found.configuration == found.machine == found.sources == []
    assert found.said[0].startswith("Nothing changed beyond its interval: ")
    assert found.differences.within["paired"] > 5 * len(STUDIED)
    assert found.differences.within["timing"] > 0


def test_a_small_change_that_all_windows_share_is_found(doctored: Callable[[Doctor], Comparison]) -> None:
    def worse(scheme: str, nll: pd.Series) -> pd.Series:
        return nll + (np.log(FACTOR) + noise(0.001) if scheme == SCHEME else 0)

    found = beyond(doctored(lambda folder: write_evaluation(folder, worse)))
    own = {(table, quantity) for table, scheme, quantity in found if scheme == SCHEME}
    assert own == {(table, name) for table in ("PERPLEXITY", "SCHEMES") for name in ("perplexity", "ratio")}
    change = found["SCHEMES", SCHEME, "perplexity"]
    assert change.kind == "paired"
    assert change.difference is not None
    assert change.difference.estimate == pytest.approx(FACTOR, rel=1e-9)
    assert 1 < change.difference.low < FACTOR < change.difference.high < 1.025
    assert change.before.high > change.after.low, "so small that the two intervals overlap"
    assert {scheme for table, scheme, _ in found if table == "GAINS"} == {
        scheme for scheme, base in GAINED.items() if base == SCHEME
    }
    assert {scheme for table, scheme, _ in found if table != "GAINS"} == {SCHEME}


def test_a_change_that_windows_do_not_share_is_chance(doctored: Callable[[Doctor], Comparison]) -> None:
    def other(scheme: str, nll: pd.Series) -> pd.Series:
        return nll + (0.002 + noise(0.05) if scheme == SCHEME else 0)

    found = doctored(lambda folder: write_evaluation(folder, other))
    assert beyond(found) == {}
    assert found.said[0].startswith("Nothing changed beyond its interval")


def test_what_rounding_alone_may_do_is_no_change(doctored: Callable[[Doctor], Comparison]) -> None:
    found = doctored(lambda folder: write_evaluation(folder, lambda _, nll: nll * (1 + 2e-8)))
    assert beyond(found) == {}


def test_answers_to_the_same_questions_are_paired(doctored: Callable[[Doctor], Comparison]) -> None:
    def forgetful(folder: Path) -> None:
        file = CHOICES.path.replace("<model>", MEASURED).replace("<scheme>", SCHEME)
        choices = read_table(CHOICES, folder / file)
        lost = choices["item"] < 8
        choices.loc[lost, "log_likelihood"] = np.where(choices.loc[lost, "is_correct"], -99.0, -1.0)
        write_table(CHOICES, choices, folder / file)
        measured = cells(STUDIED)
        measured[MEASURED, SCHEME] = measured[MEASURED, SCHEME].__class__(
            measured[MEASURED, SCHEME].fidelity,
            choices,
            measured[MEASURED, SCHEME].layers,
            measured[MEASURED, SCHEME].storage,
        )
        perplexity = read_table(PERPLEXITY, folder / PERPLEXITY.path)
        write_table(SCHEMES, summarize_schemes(measured, perplexity, "fp"), folder / SCHEMES.path)
        answers = {cell: found.choices for cell, found in measured.items()}
        write_table(ACCURACY, summarize_accuracy(answers, "fp"), folder / ACCURACY.path)

    found = beyond(doctored(forgetful))
    assert set(found) == {
        *(("SCHEMES", SCHEME, name) for name in ("accuracy", "accuracy_change")),
        *(("ACCURACY", SCHEME, f"{name}{end}") for name in ("acc", "acc_norm") for end in ("", "_change")),
    }
    change = found["SCHEMES", SCHEME, "accuracy"]
    assert change.difference is not None
    assert change.difference.estimate == pytest.approx(change.after.estimate - change.before.estimate)


@pytest.mark.parametrize("what", ["text", "tokenizer", "windows"])
def test_other_texts_are_not_paired(doctored: Callable[[Doctor], Comparison], what: str) -> None:
    """The same small change as above, but nothing says that the windows are the same: the intervals overlap."""

    def change(folder: Path) -> None:
        write_evaluation(folder, lambda scheme, nll: nll + (np.log(FACTOR) if scheme == SCHEME else 0))
        match what:
            case "text":
                (folder / "sources/corpora/prose.parquet").write_text("other", encoding="utf-8")
            case "tokenizer":
                path = folder / MEASURED / "sources/model.json"
                manifest = Manifest.read(path)
                files = tuple(replace(file, sha256="b" * 64) for file in manifest.files)
                replace(manifest, files=files).write(path)
            case "windows":
                file = WINDOWS.path.replace("<model>", MEASURED).replace("<scheme>", SCHEME)
                rewritten(WINDOWS, file, lambda table: table.assign(window=table["window"] + 1))(folder)

    found = doctored(change)
    assert ("SCHEMES", SCHEME, "perplexity") not in beyond(found)
    assert bool(found.sources) == (what != "windows")


def test_intervals_that_part_are_found_without_raw_tables(doctored: Callable[[Doctor], Comparison]) -> None:
    def change(folder: Path) -> None:
        shutil.rmtree(folder / MEASURED / "evaluation" / SCHEME)
        write = rewritten(
            SCHEMES,
            SCHEMES.path,
            lambda table: table.assign(
                **{
                    name: table[name] * np.where(table["scheme"] == SCHEME, 3.0, 1.0)
                    for name in map(str, table)
                    if name.startswith("perplexity")
                }
            ),
        )
        write(folder)

    found = beyond(doctored(change))
    assert set(found) == {("SCHEMES", SCHEME, "perplexity")}
    assert found["SCHEMES", SCHEME, "perplexity"].kind == "intervals"


def test_the_paired_interval_is_that_of_the_differences(finished: Path, tmp_path: Path) -> None:
    """Against theory: the mean of n differences lies within about two standard errors."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    drawn = pd.Series(np.random.default_rng(5).normal(0.01, 0.01, WINDOW_COUNT))
    write_evaluation(copy, lambda scheme, nll: nll + (drawn if scheme == SCHEME else 0))
    row = {"model": MEASURED, "scheme": SCHEME, "reference": "fp"}
    found = paired_difference(Folder(finished), Folder(copy), "SCHEMES", "ratio", row)
    assert found is not None
    error = drawn.std(ddof=1) / np.sqrt(WINDOW_COUNT)
    assert np.log(found.estimate) == pytest.approx(drawn.mean())
    assert np.log(found.high / found.low) == pytest.approx(2 * 1.96 * error, rel=0.15)


# --- the rest ----------------------------------------------------------------------------------------------------


def test_entries_without_an_interval_are_listed_where_they_differ(doctored: Callable[[Doctor], Comparison]) -> None:
    found = doctored(
        rewritten(SCHEMES, SCHEMES.path, lambda table: table.assign(weights_bytes=table["weights_bytes"] + 1))
    )
    assert {(change.table, change.quantity) for change in found.of("plain")} == {("SCHEMES", "weights_bytes")}
    assert len(found.of("plain")) == len(STUDIED)
    assert found.said[-1].endswith(f" {len(STUDIED)} differ.")


def test_times_stand_apart_from_findings(doctored: Callable[[Doctor], Comparison]) -> None:
    def slower(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{name: table[name] * 2 for name in map(str, table) if name.startswith("latency_ms")})

    found = doctored(rewritten(PROFILE, PROFILE.path, slower))
    assert beyond(found) == {}
    assert {change.quantity for change in found.of("timing")} == {"latency_ms"}


def test_tables_and_rows_of_one_run_only_are_named(doctored: Callable[[Doctor], Comparison]) -> None:
    def change(folder: Path) -> None:
        (folder / GAINS.path).unlink()
        rewritten(SCHEMES, SCHEMES.path, lambda table: table[table["scheme"] != "int8-bnb"])(folder)

    found = doctored(change)
    assert found.differences.notes == [f"GAINS ({GAINS.path}) is only in A."]
    assert found.differences.only_before == [("SCHEMES", f"model {MEASURED}, scheme int8-bnb")]
    assert found.differences.only_after == []


def test_another_schema_is_named_and_the_rest_compared(doctored: Callable[[Doctor], Comparison]) -> None:
    def change(folder: Path) -> None:
        table = pq.read_table(folder / SCHEMES.path)
        table = table.drop_columns(["kl_divergence_low"]).append_column("colour", pa.array(["red"] * table.num_rows))
        place = table.column_names.index("weights_bytes")
        table = table.set_column(place, "weights_bytes", pa.array(["many"] * table.num_rows))
        pq.write_table(table, folder / SCHEMES.path)
        table = pq.read_table(folder / GAINS.path)
        pq.write_table(table.drop_columns(["scheme"]), folder / GAINS.path)

    found = doctored(change)
    notes = " ".join(found.differences.notes)
    assert "SCHEMES of B lacks the columns kl_divergence_low." in notes
    assert "SCHEMES of B has columns of another version: colour." in notes
    assert "SCHEMES of B holds something else in weights_bytes." in notes
    assert "GAINS: a column of its key is missing, so its rows can't be told apart." in notes
    assert found.differences.within["paired"] > len(STUDIED)


def test_settings_and_machines_are_compared(doctored: Callable[[Doctor], Comparison]) -> None:
    def change(folder: Path) -> None:
        path = folder / "provenance/configuration.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        config["evaluation"]["window_tokens"] = 9
        del config["schemes"]["w4a4"]
        path.write_text(as_text(config), encoding="utf-8")
        rewritten(RUN, "summary/runs.parquet", lambda table: table.assign(torch="9.9"))(folder)

    found = doctored(change)
    assert found.configuration is not None
    settings = {setting.name: (setting.before, setting.after) for setting in found.configuration}
    assert settings["evaluation.window_tokens"] == (512, 9)
    assert settings["schemes.w4a4.weights.bits"] == (4, None)
    assert [(setting.name, setting.after) for setting in found.machine] == [("torch", "9.9")]


def test_times_are_those_columns_that_the_documentation_says_differ() -> None:
    timed = set(
        re.findall(r"\b[A-Z][A-Z_]+\b", HEAD.split("Some tables hold times or memory:")[1].split("All others")[0])
    )
    for declaration in summaries(ROOT):
        columns = {column.name for column in declaration.table.columns if column.type != "string"}
        of_time = {name for name in columns if is_timing(declaration.name, name)}
        assert bool(of_time) == (declaration.name in timed), (declaration.name, of_time)


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_writes_a_page(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = tmp_path / "<script>alert(1)<"
    shutil.copytree(finished, hostile)
    page = tmp_path / "page.html"
    assert main([str(finished), str(hostile), "-o", str(page)]) == 0
    assert "Nothing changed beyond its interval" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;" in text


@pytest.mark.parametrize(
    ("doctor", "said"),
    [
        (shutil.rmtree, "is not a folder"),
        (lambda folder: shutil.rmtree(folder / "summary"), "holds no table in summary/"),
        (lambda folder: (folder / SCHEMES.path).write_bytes(b"PAR1 nonsense PAR1"), "cannot read the table"),
        (
            lambda folder: (folder / "provenance/configuration.yaml").write_text("a: [", encoding="utf-8"),
            "is not plain YAML",
        ),
        (
            lambda folder: (folder / "provenance/configuration.yaml").write_text("a", encoding="utf-8"),
            "not a configuration",
        ),
    ],
)
def test_what_can_not_be_read_ends_in_one_sentence(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], doctor: Doctor, said: str
) -> None:
    copy, page = tmp_path / "copy", tmp_path / "page.html"
    shutil.copytree(finished, copy)
    doctor(copy)
    assert main([str(finished), str(copy), "-o", str(page)]) == 1
    message = capsys.readouterr().err.strip()
    assert said in message
    assert str(copy) in message
    assert "\n" not in message
    assert not page.exists()


def test_a_flipped_bit_is_noticed(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    content = bytearray((copy / SCHEMES.path).read_bytes())
    content[200] ^= 1
    (copy / SCHEMES.path).write_bytes(content)
    with pytest.raises(InferometerError, match=re.escape(str(copy / SCHEMES.path))):
        compare(finished, copy, ROOT)
