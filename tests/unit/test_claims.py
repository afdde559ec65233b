"""Claims: the ledger, the sandbox that its queries run in, and the verdicts, which come from the tables alone."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from inferometer.capacity import chapter, tables
from inferometer.capacity.catalogue import find_shape
from inferometer.capacity.tables import MACHINE
from inferometer.claims import evidence as evidence_module
from inferometer.claims.evidence import READABLE, Evidence, QueryError, sources, tables_of
from inferometer.claims.judge import judge
from inferometer.claims.ledger import Claim, Rule, read_claims
from inferometer.claims.tables import CLAIMS
from inferometer.errors import InferometerError
from inferometer.evaluation.tables import SCHEMES
from inferometer.report.claims import claims as section
from inferometer.tables import read_table, write_table
from inferometer.tables_doc import rule_outputs
from tests import synthetic_claims
from tests.synthetic import EVERY, MEASURED, study, write_results
from tests.synthetic_claims import entry

ROOT = Path(__file__).parents[2]
LEDGER = ROOT / "report/claims.yaml"
ONE = {"equals": 1, "within": 0}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of the made-up study, with the schemes that the ledger asks about."""
    folder = tmp_path_factory.mktemp("claims") / "results"
    write_results(study(EVERY), folder)
    return folder


@pytest.fixture(scope="module")
def evidence(results: Path) -> Evidence:
    return Evidence(results, results.rglob("*.parquet"))


@pytest.fixture(scope="module")
def ledger() -> list[Claim]:
    return read_claims([LEDGER])


def _rows(frame: pd.DataFrame) -> list[Any]:
    """The rows of a table, with columns as attributes."""
    return list(frame.itertuples())


def _judged(entries: list[dict[str, Any]], evidence: Evidence, folder: Path) -> pd.DataFrame:
    return judge(synthetic_claims.read(entries, folder), evidence, [MEASURED])


def _finding(rule: Mapping[str, Any], answer: str, evidence: Evidence, folder: Path, **own: Any) -> Any:
    """The one row that becomes of a claim with this rule and query."""
    (row,) = _rows(_judged([entry("one", answer, rule, **own)], evidence, folder))
    return row


# the ledger that is shipped


def test_every_part_of_the_source_studies_has_claims(ledger: list[Claim]) -> None:
    assert {claim.study for claim in ledger} == {f"S{number}" for number in range(1, 21)}
    assert all(claim.id.startswith(f"{claim.study.lower()}-") for claim in ledger)
    assert len(ledger) >= 60


def test_no_verdict_stands_in_the_ledger() -> None:
    text = LEDGER.read_text(encoding="utf-8").lower()
    assert not re.search(r"\b(supported|contradicted|inconclusive)\b", text)


def test_figures_say_where_they_apply_and_theory_needs_no_model(ledger: list[Claim]) -> None:
    for claim in ledger:
        assert (claim.kind == "figure") <= bool(claim.device or claim.parameters), claim.id
        if claim.kind == "theory":
            assert not claim.asks_each_model, claim.id
            assert claim.device is None, claim.id
            assert set(tables_of(claim.query)) <= {name for name in sources() if name.startswith("capacity.")}, claim.id


def test_every_claim_reads_known_tables_and_runs(ledger: list[Claim], evidence: Evidence) -> None:
    """On tables of another study: what is not there is not testable, and nothing fails."""
    assert all(tables_of(claim.query) for claim in ledger)
    everywhere = [Claim(**{**vars(claim), "device": None, "parameters": None}) for claim in ledger]
    rows = judge(everywhere, evidence, [MEASURED])
    assert rows[rows["verdict"] == "failed"][["claim", "reason"]].to_dict("records") == []
    assert (rows["verdict"] != "not testable here").mean() > 0.5  # enough of them found something to measure


def test_known_errors_of_the_studies_are_contradicted_by_theory(ledger: list[Claim], tmp_path: Path) -> None:
    shapes = {name: find_shape(name) for name in ("llama-3-8b", "llama-2-7b", "smollm2-135m")}
    settings = study()["capacity"] | {
        "gpus": ["a100-80gb"],
        "context_tokens": [1024, 4096],
        "kv_bits": [16],
        "intensity": {"context_tokens": [1024, 8192], "batches": [1, 100]},
    }
    folder = tmp_path / "capacity"
    write_table(tables.PARAMETERS, chapter.parameters(shapes), folder / "parameters.parquet")
    write_table(tables.WEIGHTS, chapter.weights(shapes, "bfloat16"), folder / "weights.parquet")
    write_table(tables.REQUESTS, chapter.requests(shapes, settings), folder / "requests.parquet")
    write_table(tables.INTENSITY, chapter.intensity(shapes, settings), folder / "intensity.parquet")
    write_table(tables.RIDGES, chapter.ridges(), folder / "ridges.parquet")
    theory = [claim for claim in ledger if claim.kind == "theory"]
    rows = judge(theory, Evidence(tmp_path, folder.iterdir()), [])
    verdicts = dict(zip(rows["claim"], rows["verdict"], strict=True))
    assert set(verdicts.values()) == {"supported", "contradicted"}
    wrong = {name for name, verdict in verdicts.items() if verdict == "contradicted"}
    assert {f"s15-002-{what}" for what in ("parameters", "weights", "cache", "batch")} <= wrong
    assert {"s15-heads-do-not-matter", "s16-002-two-gpus", "s16-004-combined", "s17-004-decode-batch"} <= wrong
    assert {f"s15-004-{what}" for what in ("parameters", "weights", "cache", "batch")} <= verdicts.keys() - wrong
    assert {"s3-kv-bytes-per-token", "s16-004-three-gpus", "s17-002-decode-flat"} <= verdicts.keys() - wrong
    assert rows["device"].isna().all()


# doctored tables


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ((1.02, 1.01, 1.03), "supported"),
        ((1.30, 1.20, 1.40), "contradicted"),
        ((1.05, 1.00, 1.10), "inconclusive"),
        ((np.nan, np.nan, np.nan), "not testable here"),
    ],
)
def test_a_doctored_table_flips_the_verdict(
    bounds: tuple[float, float, float], verdict: str, ledger: list[Claim], results: Path, tmp_path: Path
) -> None:
    table = read_table(SCHEMES, results / "summary/schemes.parquet")
    table.loc[table["scheme"] == "w8a8", ["ratio", "ratio_low", "ratio_high"]] = bounds
    write_table(SCHEMES, table, tmp_path / "summary/schemes.parquet")
    (claim,) = [claim for claim in ledger if claim.id == "s7-w8a8-minimal"]
    rows = judge([claim], Evidence(tmp_path, tmp_path.rglob("*.parquet")), [MEASURED])
    assert rows["verdict"].tolist() == [verdict]


def test_the_same_tables_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    before = (results / "claims.parquet").read_bytes()
    synthetic_claims.write(MEASURED, results)
    assert (results / "claims.parquet").read_bytes() == before


# rules

REGIONS: list[tuple[dict[str, Any], float, float]] = [
    ({"equals": 10, "within": 1}, 10.5, 12),
    ({"equals": 10, "within_percent": 10}, 9.5, 8),
    ({"equals": -10, "within_percent": 10}, -10.5, -12),
    ({"at_least": 10}, 10, 9.9),
    ({"at_most": 10}, 10, 10.1),
    ({"more_than": 10}, 10.1, 10),
    ({"less_than": 10}, 9.9, 10),
    ({"between": [8, 10]}, 8, 7.9),
]


@pytest.mark.parametrize(("rule", "inside", "outside"), REGIONS)
def test_a_value_alone_decides_by_every_relation(
    rule: dict[str, Any], inside: float, outside: float, evidence: Evidence, tmp_path: Path
) -> None:
    for value, verdict in ((inside, "supported"), (outside, "contradicted")):
        row = _finding(rule, f"SELECT {value} AS measured", evidence, tmp_path)
        assert (row.verdict, row.measured) == (verdict, value)
        assert "the value alone" in row.reason
        assert pd.isna(row.low)
        assert pd.isna(row.high)


@pytest.mark.parametrize(("rule", "inside", "outside"), REGIONS)
def test_an_interval_decides_as_a_whole(
    rule: dict[str, Any], inside: float, outside: float, evidence: Evidence, tmp_path: Path
) -> None:
    low, high = sorted((inside, outside))
    spans = {"supported": (inside, inside), "contradicted": (outside, outside), "inconclusive": (low, high)}
    for verdict, (start, end) in spans.items():
        # the value itself lies inside each time: where there is an interval, it has no say
        row = _finding(rule, f"SELECT {inside} AS measured, {start} AS low, {end} AS high", evidence, tmp_path)
        assert row.verdict == verdict, (start, end)


finite = st.floats(-1e6, 1e6)


@given(finite, finite, finite, finite, st.booleans())
def test_verdicts_are_what_sampling_the_interval_says(a: float, b: float, c: float, d: float, is_open: bool) -> None:
    (low, high), (start, end) = sorted((a, b)), sorted((c, d))
    rule = Rule(low, high, is_open, "")
    inside = [rule.holds(float(value)) for value in np.linspace(start, end, 41)]
    verdict, _ = rule.verdict(start, start, end)
    if verdict == "supported":
        assert all(inside)
    elif verdict == "contradicted":
        assert not any(inside)
    else:
        assert not all(inside)


def test_a_claim_that_does_not_apply_says_why_and_its_query_is_not_asked(evidence: Evidence, tmp_path: Path) -> None:
    ask = "SELECT nothing AS measured FROM summary.schemes WHERE model = $model"
    row = _finding(ONE, ask, evidence, tmp_path, applies={"device": "cuda"})
    assert (row.verdict, row.reason) == ("not testable here", "It is about CUDA, and this study ran on CPU.")
    row = _finding(ONE, ask, evidence, tmp_path, applies={"parameters": [7e9, 9e9]})
    assert row.verdict == "not testable here"
    assert row.reason == f"It is about models of 7·10⁹ to 9·10⁹ parameters, and {MEASURED} has 0.1345·10⁹."
    row = _finding(
        ONE,
        "SELECT 1 AS measured WHERE $model <> ''",
        evidence,
        tmp_path,
        applies={"device": "cpu", "parameters": [1e8, 2e8]},
    )
    assert row.verdict == "supported"


def test_results_without_a_machine_know_no_device(tmp_path: Path) -> None:
    row = _finding(ONE, "SELECT 1 AS measured", Evidence(tmp_path, []), tmp_path, applies={"device": "cpu"})
    assert row.reason == "It is about CPU, and this study ran on an unknown device."


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (
            "SELECT ratio AS measured FROM summary.schemes WHERE scheme = 'none'",
            "no such measurement in summary.schemes",
        ),
        ("SELECT NULL AS measured FROM machine", "no such measurement in machine"),
        (
            "SELECT max(decode_ms) AS measured FROM summary.kv_cache WHERE false",
            "no such measurement in summary.kv_cache",
        ),
        ("SELECT 'nan'::DOUBLE AS measured", "no such measurement in its tables"),
    ],
)
def test_what_was_not_measured_is_not_testable(query: str, reason: str, evidence: Evidence, tmp_path: Path) -> None:
    row = _finding(ONE, query, evidence, tmp_path)
    assert row.verdict == "not testable here"
    assert reason in row.reason


def test_a_claim_reads_its_tables_once_for_all_models(results: Path, tmp_path: Path) -> None:
    own = tmp_path / "results"
    shutil.copytree(results / "summary", own / "summary")
    evidence = Evidence(own, own.rglob("*.parquet"))
    count = "SELECT count(*) AS measured FROM summary.{} WHERE model = $model"
    found = evidence.ask(count.format("schemes"), MEASURED)
    shutil.rmtree(own)
    assert evidence.ask(count.format("schemes"), MEASURED) == found
    assert evidence.ask(count.format("schemes"), "another").measured == 0
    with pytest.raises(InferometerError, match="cannot read the table"):
        evidence.ask(count.format("gains"), MEASURED)


def test_a_table_that_the_results_lack_is_named(tmp_path: Path) -> None:
    query = "SELECT gap_closed AS measured FROM summary.gains WHERE model = $model"
    row = _finding(ONE, query, Evidence(tmp_path, []), tmp_path)
    assert (row.verdict, row.reason) == ("not testable here", "The results have no table summary.gains.")


def test_a_claim_is_judged_for_each_model_that_its_query_asks_about(evidence: Evidence, tmp_path: Path) -> None:
    entries = [
        entry("each", "SELECT length($model) AS measured", {"at_least": 5}),
        entry("once", "SELECT 1 AS measured", ONE),
    ]
    rows = judge(synthetic_claims.read(entries, tmp_path), evidence, ["long-name", "no"])
    found = rows[["claim", "model", "verdict"]].to_numpy().tolist()
    assert found == [["each", "long-name", "supported"], ["each", "no", "contradicted"], ["once", "", "supported"]]
    write_table(CLAIMS, rows, tmp_path / "claims.parquet")


# queries that are broken, and those that would do more than read

BROKEN = [
    ("SELEC 1", "syntax error"),
    ("SELECT 1 AS measured FROM summary.nothing", 'summary.nothing" does not exist'),
    ("SELECT nothing AS measured FROM summary.schemes", '"nothing" not found'),
    ("SELECT ratio AS measured FROM summary.schemes", "several rows"),
    ("SELECT 'many' AS measured", "'many', which is not a number"),
    ("SELECT true AS measured", "True, which is not a number"),
    ("SELECT [1] AS measured", "[1], which is not a number"),
    ("SELECT 1 AS value", "its columns are value"),
    ("SELECT 1 AS measured, 0 AS low", "its columns are measured, low"),
    ("SELECT 1 AS measured, 2 AS low, 0 AS high", "above its end"),
    ("SELECT $scheme AS measured", "parameter $scheme, but only $model"),
    ("", "one SELECT"),
    ("SELECT 1 AS measured; SELECT 2 AS measured", "one SELECT"),
]
FORBIDDEN = [
    "DROP TABLE summary.schemes",
    "DELETE FROM summary.schemes",
    "SELECT 1 AS measured; DROP TABLE summary.schemes",
    "COPY (SELECT 1) TO '{target}'",
    "COPY summary.schemes TO '{target}' (FORMAT parquet)",
    "ATTACH '{target}'",
    "EXPORT DATABASE '{target}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "PRAGMA enable_object_cache",
    "SELECT count(*) AS measured FROM read_text('{secret}')",
    "SELECT count(*) AS measured FROM read_csv('{secret}')",
    "SELECT count(*) AS measured FROM '{secret}'",
    "SELECT count(*) AS measured FROM read_parquet('{secret}')",
    "SELECT count(*) AS measured FROM glob('{folder}/*')",
    "SELECT count(*) AS measured FROM read_csv('https://localhost/a.csv')",
    "SELECT count(*) AS measured FROM frame",  # a variable of the code that asks
    "SELECT count(*) AS measured FROM query('DROP TABLE summary.schemes')",
]


@pytest.mark.parametrize(("query", "told"), BROKEN)
def test_a_broken_query_fails_its_own_claim_only_and_is_named(
    query: str, told: str, evidence: Evidence, tmp_path: Path
) -> None:
    entries = [entry("bad", query or " ", ONE), entry("good", "SELECT 1 AS measured", ONE)]
    bad, good = _rows(_judged(entries, evidence, tmp_path))
    assert (bad.verdict, good.verdict) == ("failed", "supported")
    assert bad.reason.startswith("The query of claim 'bad' has a fault: ")
    assert told in bad.reason
    assert "\n" not in bad.reason
    assert bad.reason.endswith(".")


@pytest.mark.parametrize("query", FORBIDDEN)
def test_a_query_can_only_read_the_tables(query: str, evidence: Evidence, tmp_path: Path) -> None:
    secret, target = tmp_path / "secret.csv", tmp_path / "target"
    secret.write_text("a,b\n1,2\n", encoding="utf-8")
    frame = pd.DataFrame({"a": [1]})
    with pytest.raises(QueryError):
        evidence.ask(query.format(secret=secret, target=target, folder=tmp_path))
    assert len(frame) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.csv"]
    assert evidence.ask("SELECT count(*) AS measured FROM summary.schemes").measured == len(EVERY)


def test_a_query_without_an_end_is_stopped(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "LONGEST_S", 0.2)
    with pytest.raises(QueryError, match=r"longer than 0\.2 s"):
        evidence.ask("SELECT count(*) AS measured FROM range(1000000000) AS a, range(1000000000) AS b")


def test_tables_are_called_as_their_files_lie(results: Path) -> None:
    assert {"summary.schemes", "machine", "kv_cache.trace", "capacity.weights", "profiling.latency"} <= sources().keys()
    assert len(sources()) == len(READABLE)
    assert sources()["kv_cache.trace"].folders == ("model", "policy")
    found = tables_of('select * from "summary"."schemes", Kv_Cache . trace -- not summary.schemes_old or machines')
    assert found == ["summary.schemes", "kv_cache.trace"]


def test_folders_become_columns(evidence: Evidence, results: Path) -> None:
    policies = {path.parent.name for path in results.glob("*/kv_cache/*/trace.parquet")}
    query = "SELECT count(DISTINCT policy) AS measured FROM kv_cache.trace WHERE model = $model"
    assert evidence.ask(query, MEASURED).measured == len(policies) > 1
    assert evidence.ask(query, "another").measured == 0


def test_a_damaged_table_ends_the_job_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / MACHINE.path
    file.write_bytes(b"PAR1")
    with pytest.raises(InferometerError, match=r"machine\.parquet"):
        Evidence(tmp_path, [file]).ask("SELECT count(*) AS measured FROM machine")


def test_the_rule_hands_over_every_table_that_queries_may_read() -> None:
    """Read from the text of the rule: the outputs of other rules, and files by their paths."""
    text = (ROOT / "rules/claims.smk").read_text(encoding="utf-8")
    outputs = rule_outputs(ROOT)
    given = {file for rule in re.findall(r"rules\.(\w+)\.output", text) for file in outputs[rule]}
    for found in re.finditer(r'"results/([^"]+\.parquet)"', text):
        path = re.sub(r"\{(\w+)\}", r"<\1>", found[1])
        names = re.search(r"table=\[([^\]]+)\]", text[found.end() :]) if "<table>" in path else None
        given |= {path.replace("<table>", name) for name in re.findall(r'"(\w+)"', names[1] if names else '"none"')}
    given |= {f"<model>/kv_cache/<policy>/{name}.parquet" for name in re.findall(r'of_every_cell\("(\w+)"\)', text)}
    assert {table.path for table in READABLE} <= given


# files of claims that can't be used

GOOD = entry("good", "SELECT 1 AS measured", ONE)
MALFORMED: list[tuple[Any, str]] = [
    ({"id": "a"}, "are not a list"),
    (None, "are not a list"),
    (["text"], "claim number 1"),
    ([{**GOOD, "id": "A b"}], "`id` is 'A b'"),
    ([{**GOOD, "colour": 1}], "claim 'good' in {file} has the unknown key `colour`"),
    ([{name: value for name, value in GOOD.items() if name != "query"}], "claim 'good' in {file} lacks `query`"),
    ([{**GOOD, "chapter": "kitchen"}], "`chapter` is 'kitchen'; it must be one of evaluation, calibration"),
    ([{**GOOD, "kind": "guess"}], "`kind` is 'guess'; it must be one of figure, relation, theory"),
    ([{**GOOD, "query": 1}], "`query` is 1; it must be of type string"),
    ([{**GOOD, "reported": "many"}], "`reported` is 'many'; it must be of type number or array"),
    ([{**GOOD, "reported": float("nan")}], "`reported` is nan"),
    ([{**GOOD, "statement": ""}], "`statement` is empty"),
    ([{**GOOD, "rule": {}}], "`rule` is empty"),
    ([{**GOOD, "rule": {"at_lest": 1}}], "`rule` has the unknown key `at_lest`"),
    ([{**GOOD, "rule": {"within": 1}}], "exactly one of equals"),
    ([{**GOOD, "rule": {"at_least": 1, "at_most": 2}}], "it has `at_least`, `at_most`"),
    ([{**GOOD, "rule": {"equals": 1}}], "exactly one of within and within_percent"),
    ([{**GOOD, "rule": {"at_least": 1, "within": 2}}], "neither beside others"),
    ([{**GOOD, "rule": {"between": [2, 1]}}], "write the lower end first"),
    ([{**GOOD, "applies": {"device": "tpu"}}], "`applies.device` is 'tpu'"),
    ([{**GOOD, "applies": {"parameters": [1, 2]}}], "WHERE model = $model"),
    ([GOOD, GOOD], "has the id of another claim"),
]


@pytest.mark.parametrize(("content", "told"), MALFORMED)
def test_a_malformed_file_is_refused_in_one_sentence(content: Any, told: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(InferometerError) as caught:
        read_claims([file])
    message = str(caught.value)
    assert told.format(file=file) in message
    assert str(file) in message
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"- id: [", "not plain YAML at line"), (b"\xff\xfe\xff", "not UTF-8"), (None, "No such file")],
)
def test_a_file_that_is_no_yaml_is_refused(content: bytes | None, told: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InferometerError, match=told):
        read_claims([file])


# the section of the page


def test_the_section_counts_verdicts_and_links_every_claim(results: Path) -> None:
    shown = section(results)
    assert shown.verdicts == {
        "supported": 2,
        "contradicted": 1,
        "inconclusive": 1,
        "not testable here": 1,
        "failed": 1,
    }
    assert shown.said[0] == ("6 claims: 2 supported, 1 contradicted, 1 inconclusive, 1 not testable here and 1 failed.")
    assert shown.chapters == {"evaluation": 5, "capacity": 1}
    assert [row.anchor for row in shown.rows] == [f"claim-{entry['id']}" for entry in synthetic_claims.ENTRIES]


def test_a_claim_of_several_models_has_an_address_for_each(evidence: Evidence, tmp_path: Path) -> None:
    claims = synthetic_claims.read([entry("each", "SELECT length($model) AS measured", {"at_least": 1})], tmp_path)
    write_table(CLAIMS, judge(claims, evidence, ["a", "b"]), tmp_path / "claims.parquet")
    shown = section(tmp_path)
    assert [row.anchor for row in shown.rows] == ["claim-each", "claim-each--b"]
    assert shown.said[0] == "1 claim in 2 rows, one for each of 2 models where that matters: 2 supported."


@pytest.mark.parametrize(
    ("entries", "said"),
    [([], "holds no claims"), ([entry("lost", "SELECT NULL AS measured", ONE)], "None of them could be tested here")],
)
def test_nothing_to_judge_is_said(entries: list[dict[str, Any]], said: str, evidence: Evidence, tmp_path: Path) -> None:
    write_table(CLAIMS, _judged(entries, evidence, tmp_path), tmp_path / "claims.parquet")
    assert said in " ".join(section(tmp_path).said)


# the documentation


def test_the_claim_that_the_documentation_walks_through_works(results: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(- id: .*?)```", text[text.index("## How to add a claim") :], flags=re.DOTALL)
    file = tmp_path / "my-claims.yaml"
    file.write_text(example, encoding="utf-8")
    claims = read_claims([LEDGER, file])
    (row,) = _rows(judge(claims[-1:], Evidence(results, results.rglob("*.parquet")), [MEASURED]))
    assert (row.claim, row.verdict) == ("my-small-gap", "contradicted")
    table = read_table(SCHEMES, results / "summary/schemes.parquet")
    table.loc[table["scheme"] == "w8a8", ["ratio", "ratio_low", "ratio_high"]] = (1.001, 1.0, 1.002)
    write_table(SCHEMES, table, tmp_path / "summary/schemes.parquet")
    (row,) = _rows(judge(claims[-1:], Evidence(tmp_path, tmp_path.rglob("*.parquet")), [MEASURED]))
    assert row.verdict == "supported"


def test_the_documentation_names_every_key_of_a_claim_and_every_relation() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    text = text[text.index("## How to add a claim") :].split("\n## ")[1 - 1]
    keys = yaml.safe_load((ROOT / "inferometer/claims/schema.yaml").read_text(encoding="utf-8"))["items"]["properties"]
    for key in (*keys, *keys["rule"]["properties"], *keys["applies"]["properties"]):
        assert f"`{key}`" in text, key
