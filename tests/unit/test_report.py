"""The report: one file that needs nothing else, escapes everything, and says what the tables say."""

import re
from collections.abc import Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from inferometer.capacity.tables import MACHINE
from inferometer.config import validate
from inferometer.errors import InferometerError
from inferometer.generation.figures import STUDY_RARITY
from inferometer.generation.summary import summarize_insertions
from inferometer.generation.tables import MEASURES
from inferometer.profiling.summary import cache_speed
from inferometer.report import generation as generation_module
from inferometer.report import profiling as profiling_module
from inferometer.report import sentences
from inferometer.report.contents import contents
from inferometer.report.formats import gibibytes, interval, number, percent, ratio, ratio_interval, seconds
from inferometer.report.page import render
from inferometer.report.temperature import SHOWN_CHARACTERS, said_of_temperature
from inferometer.runs import RUN
from inferometer.tables import read_table, write_table
from tests.synthetic import (
    ATTENTION_FIGURES,
    CACHE_FIGURES,
    COSTS,
    EVERY,
    GENERATION_FIGURES,
    INTEGER,
    ITEMS,
    LAYERS,
    MEASURED,
    PROFILE_FIGURES,
    QUESTION_SETS,
    ROTATED,
    SEARCHED,
    SECTIONS,
    SEED,
    SHAPES,
    SKIPPED,
    Config,
    alphas,
    basis,
    paths,
    ranges,
    sites,
    study,
    write_results,
)
from tests.synthetic import cache as made_up_cache
from tests.synthetic import cache_checks as made_up_checks
from tests.synthetic import insertions as made_up_insertions

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "report"
SCRIPT = "<script>alert(1)</script>"
TITLE = f"{SCRIPT} \"quoted\" & 'single' </title></style></h1>"
HOSTILE: dict[str, Any] = {
    "attribution": f'" onmouseover="alert(1)" {SCRIPT} <img src=https://example.org/a.png>',
    "licence": "שלום \u202eevil\u202c & {{ 7 * 7 }} {% raw %}",
    "caveat": "x" * 400 + f" -->{SCRIPT}<!--",
}
NAN, INFINITY = float("nan"), float("inf")
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Parsed(HTMLParser):
    """A page as elements: (tag, attributes) in order, the text of each kind of element, and whether tags match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.faults.append(f"<{tag}> has an attribute twice")
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def _page(config: Config, folder: Path) -> str:
    validate(config, ROOT, folder)
    write_results(config, folder / "results")
    render(TEMPLATES, folder / "page.html", contents(config, folder / "results", TEMPLATES / "reported.yaml"))
    return (folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _page(study(caveat="Rounded once before.", attribution="A. Body"), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _page(study(title=TITLE, **HOSTILE), tmp_path_factory.mktemp("hostile"))


@pytest.fixture(params=["page", "hostile"])
def either(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def _section(page: str, name: str) -> str:
    """The readable text of a section, with white space folded."""
    [part] = re.findall(rf'<section id="{name}">.*?</section>', page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", part).split())


# --- the file ----------------------------------------------------------------------------------------------------


def test_the_page_is_well_formed_html_in_standards_mode(either: str) -> None:
    assert either.startswith("<!DOCTYPE html>"), "anything before it would put browsers into quirks mode"
    parsed = Parsed(either)
    assert parsed.faults == []
    assert [attributes.get("lang") for attributes in parsed.named("html")] == ["en"]
    assert {"charset": "utf-8"} in parsed.named("meta")
    assert len(parsed.named("h1")) == 1


def test_all_sections_are_there_and_the_navigation_reaches_them(either: str) -> None:
    parsed = Parsed(either)
    assert tuple(attributes["id"] for attributes in parsed.named("section")) == SECTIONS
    targets = [attributes["href"].removeprefix("#") for attributes in parsed.named("a")]
    assert tuple(name for name in targets if name in SECTIONS)[: len(SECTIONS)] == SECTIONS
    assert targets[0] == "content", "a keyboard can skip the navigation"


def test_every_anchor_leads_somewhere_and_no_name_is_given_twice(either: str) -> None:
    parsed = Parsed(either)
    names = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(names) == len(set(names))
    targets = [attributes["href"] for attributes in parsed.named("a")]
    assert targets
    assert all(target.removeprefix("#") in names for target in targets)


def test_nothing_is_fetched_from_elsewhere(either: str) -> None:
    parsed = Parsed(either)
    [script] = parsed.named("script")
    assert script == {}, "the page's own, in the page"
    assert not {"iframe", "object", "embed", "base", "form", "video", "audio"} & {tag for tag, _ in parsed.elements}
    for _, attributes in parsed.elements:
        for name in ("src", "href", "srcset", "poster", "action", "data", "background"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    [style] = parsed.texts["style"]
    assert "@import" not in style
    assert all(address.startswith("data:") for address in re.findall(r"url\(\s*['\"]?([^)]*)", style))


def test_figures_lie_in_the_page_and_say_what_they_show(either: str) -> None:
    images = Parsed(either).named("img")
    assert (
        len(images)
        == 2 + 1 + 3 + 3 + 1 + 3 + PROFILE_FIGURES + CACHE_FIGURES + GENERATION_FIGURES + ATTENTION_FIGURES + 2
    ), (
        "perplexity and bytes, sensitivity, three of calibration, one for each smoothed scheme and one for each "
        "search, three of capacity, those of profiling, KV caches and generation, and two of the fundamentals"
    )
    drawn = r"data:image/(svg\+xml,%3Csvg .{100,}%3C/svg%3E|webp;base64,[\w+/]{100,}=*)$"
    assert all(re.match(drawn, image["src"]) for image in images)
    assert all(len(image["alt"]) > 20 for image in images)
    assert len(Parsed(either).texts["figcaption"]) == len(images)
    read = " ".join(" ".join(Parsed(either).texts[tag]) for tag in ("p", "li"))
    told = [image["alt"] for image in images if image["alt"].split(". ", 1)[-1] in read]
    assert len(told) > len(images) / 2, "who can't see a figure is told what the tables say of it"


def test_tables_that_scroll_can_be_reached_by_keyboard_and_have_names(either: str) -> None:
    regions = [attributes for attributes in Parsed(either).named("div") if attributes.get("class") == "scroll"]
    assert len(regions) == len(Parsed(either).named("table"))
    assert all(region["tabindex"] == "0" and region["role"] == "region" and region["aria-label"] for region in regions)


def test_hostile_text_is_shown_and_never_run(hostile: str) -> None:
    parsed = Parsed(hostile)
    assert SCRIPT not in hostile
    assert parsed.texts["h1"] == [TITLE]
    assert parsed.texts["title"] == [f"{TITLE} – Inferometer"]
    cells = " ".join(parsed.texts["td"])
    assert HOSTILE["attribution"] in cells
    assert HOSTILE["licence"] in cells
    assert any(HOSTILE["caveat"] in text for text in parsed.texts["p"])
    assert "<script>" in parsed.texts["pre"][-1], "the configuration is printed as it is"
    assert all(not image["src"].startswith("https") for image in parsed.named("img"))


def test_nothing_reads_as_a_missing_value(either: str) -> None:
    for name in SECTIONS:
        assert not re.search(r"\b(nan|NaN|None|null|inf|undefined)\b", _section(either, name).split("configuration")[0])


def test_the_same_results_give_the_same_bytes(page: str, tmp_path: Path) -> None:
    assert _page(study(caveat="Rounded once before.", attribution="A. Body"), tmp_path) == page


def test_a_name_that_the_context_lacks_is_an_error(tmp_path: Path) -> None:
    config = study()
    write_results(config, tmp_path / "results")
    context = contents(config, tmp_path / "results", TEMPLATES / "reported.yaml")
    for name in context:
        with pytest.raises(InferometerError, match=f"'{name}' is undefined"):
            render(TEMPLATES, tmp_path / "page.html", {key: value for key, value in context.items() if key != name})
    assert not (tmp_path / "page.html").exists()


# --- what it shows -----------------------------------------------------------------------------------------------


def test_the_float_model_comes_before_its_families(page: str) -> None:
    [listed] = re.findall(r'<div class="part shows">.*?</div>', page.split('id="evaluation"')[1], flags=re.DOTALL)[:1]
    answers = [item.strip() for item in Parsed(listed).texts["li"]]
    starts = [
        f"{MEASURED} has a perplexity of ",
        "W8A8: w8a8-search raises the perplexity by 1.1 %",
        "W4A4: w4a4-rotated raises the perplexity by ",
        "w8a8-integer multiplies integers; its perplexity is to the last digit that of w8a8, simulated.",
        "No other scheme has both fewer bytes and a lower perplexity than these: w4a4-rotated, w8a8-search, fp.",
        "nf4-bnb could not be run: the library bitsandbytes can't be loaded here",
    ]
    assert len(answers) == len(starts)
    for answer, start in zip(answers, starts, strict=True):
        assert answer.startswith(start)
    assert answers[0].endswith("in float (float32).")
    assert "the best of 5; the worst, w8a8" in answers[1]
    assert "the best of 3; the worst, w4a4, multiplies" in answers[2]
    assert ["collapsed" in answer for answer in answers[1:3]] == [False, True]


def test_caveats_and_random_weights_are_said_beside_the_answers(page: str) -> None:
    answers = _section(page, "answers")
    assert f"{MEASURED}: Rounded once before." in answers
    assert f"{SHAPES} has random weights: it stands for shapes only" in answers


def test_nothing_was_measured_of_random_weights(page: str) -> None:
    for name in ("evaluation", "calibration", "smoothing", "rotation", "machine"):
        assert SHAPES not in _section(page, name)
    assert SHAPES in _section(page, "sources")


def test_schemes_stand_in_the_order_of_the_study(tmp_path: Path) -> None:
    order = ("w4a4", "fp", "w8a8")
    page = _page(study(schemes=order), tmp_path)
    for table in _tables(page, "evaluation")[:2]:
        found = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr><td.*?</tr>", table, re.DOTALL)]
        assert tuple(next(word for word in row if word in order) for row in found) == order


def _tables(page: str, section: str) -> list[str]:
    [part] = re.findall(rf'<section id="{section}">.*?</section>', page, flags=re.DOTALL)
    return re.findall(r"<table>.*?</table>", part, flags=re.DOTALL)


def _rows(page: str, section: str) -> list[str]:
    [part] = re.findall(rf'<section id="{section}">.*?</section>', page, flags=re.DOTALL)
    return re.findall(r"<tr>.*?</tr>", part, flags=re.DOTALL)


def _cells(row: str) -> list[str]:
    """The text of a row's cells, with white space folded."""
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row, flags=re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", cell)).split()) for cell in cells]


def _body(table: str) -> list[list[str]]:
    """The cells of each row below the heading."""
    return [cells for row in re.findall(r"<tr>.*?</tr>", table, flags=re.DOTALL) if (cells := _cells(row))]


def test_every_scheme_has_a_row_with_all_that_was_measured_of_it(page: str) -> None:
    rows = {cells[0].split()[0]: cells for cells in _body(_tables(page, "evaluation")[0])}
    assert tuple(rows) == EVERY
    assert rows["fp"][2:8] == ["1", "0", "100 %", "5.000", "float32", "512 CPU"]
    assert rows["fp"][8].startswith("70.0 % [")
    assert rows["fp"][9:] == ["–"]
    assert rows["w8a8"][2].startswith("1.0")
    assert rows["w8a8"][3].startswith("0.0")
    assert rows["w8a8"][4] == "100.0 %"
    assert rows["w4a4"][4] == "25.0 %"
    assert rows["w4a4"][5:7] == ["1.500", "4.00"]
    assert rows["w4a4"][9].startswith("−30.0 % [−")
    assert len({len(cells) for scheme, cells in rows.items() if scheme not in SKIPPED}) == 1


def test_a_skipped_scheme_has_its_reason_and_no_numbers(page: str) -> None:
    [cells] = [cells for cells in _body(_tables(page, "evaluation")[0]) if cells[0] in SKIPPED]
    assert cells[1:] == [f"could not be run: {SKIPPED[cells[0]]}"]
    for table in _tables(page, "evaluation")[1:3]:
        assert not [cells for cells in _body(table) if set(cells) & set(SKIPPED)]


def test_only_schemes_that_round_values_are_marked_as_simulated_and_those_have_no_speed(page: str) -> None:
    for cells in _body(_tables(page, "evaluation")[0]):
        scheme, _, marked = cells[0].partition(" ")
        computes = scheme in ("fp", INTEGER, "int8-bnb", *SKIPPED)
        executed = {INTEGER: "executed with int8 product", "int8-bnb": "executed with bitsandbytes"}
        assert marked == executed.get(scheme, "" if computes else "simulated"), scheme
        if scheme not in SKIPPED:
            assert cells[7] == ("512 CPU" if computes else "–"), scheme


def test_what_each_scheme_is_stands_in_words(page: str) -> None:
    rows = {cells[0]: cells[1:5] for cells in _body(_tables(page, "evaluation")[1])}
    assert tuple(rows) == tuple(COSTS)
    assert rows["fp"] == ["float32", "float32", "–", "float"]
    assert rows["w8a8"] == ["8 bits, per channel", "8 bits, per token", "–", "simulated"]
    assert rows[INTEGER][3] == "integer: int8 product"
    assert rows[SEARCHED][2] == "SmoothQuant, α searched per site, all sites"
    assert rows[ROTATED][2] == "rotated"
    assert rows["int8-bnb"] == ["8 bits, bitsandbytes", "8 bits, bitsandbytes (0.4 % of channels)", "–", "bitsandbytes"]


def test_accuracies_of_every_question_set_are_listed(page: str) -> None:
    rows = _body(_tables(page, "evaluation")[2])
    assert [(cells[1], cells[2]) for cells in rows] == [(scheme, name) for scheme in COSTS for name in QUESTION_SETS]
    assert {(cells[3], cells[4]) for cells in rows} == {(str(ITEMS), "33 %")}


def test_gains_say_against_which_scheme_they_are(page: str) -> None:
    found = {(cells[1], cells[2]) for cells in _body(_tables(page, "evaluation")[3])}
    assert found == {
        ("w8a8-smooth", "w8a8"),
        (SEARCHED, "w8a8"),
        ("w4a4-smooth", "w4a4"),
        (ROTATED, "w4a4"),
    }


def test_layers_that_are_hurt_most_are_shown_where_they_were_measured(page: str, tmp_path: Path) -> None:
    assert f"{MEASURED}: each layer rounded alone" in _section(page, "evaluation")
    other = _page(study(schemes=("fp", "w8a8")), tmp_path)
    assert "each layer rounded alone" not in other


def test_searches_and_rotations_are_told_in_their_chapters(page: str) -> None:
    smoothing = _section(page, "smoothing")
    assert smoothing.count("The search chose") == 1
    assert f"{SEARCHED} (SmoothQuant, α searched per site, all sites)" in smoothing
    rotation = _section(page, "rotation")
    assert f"{MEASURED}: seed {SEED} ({ROTATED})" in rotation
    assert "leaving the model's own basis gains 0.50 dB by this measure" in unescape(rotation)
    assert "No scheme of this study" not in smoothing + rotation


def test_the_other_study_is_quoted_beside_the_librarys_scheme_where_that_ran(page: str, tmp_path: Path) -> None:
    text = _section(page, "evaluation")
    assert "Here int8-bnb on tiny-llama has 1.0" in text
    assert "75.0 % less than in float32" in text  # 8 of 32 bits
    assert "60.0 % less" in text  # 2 of 5 million bytes
    other = _page(study(schemes=("fp", "w8a8")), tmp_path)
    assert "bitsandbytes library" not in other


def test_a_job_without_a_scheme_has_a_dash_in_its_place(page: str) -> None:
    [row] = [row for row in _rows(page, "machine") if "<td>calibrate</td>" in row]
    assert f'<td class="text">{MEASURED}</td><td class="text">–</td>' in row


def test_reported_figures_stand_beside_the_measured_ones(page: str) -> None:
    text = _section(page, "evaluation")
    assert f"Llama-3-8B (reported) Llama-2-7B (reported) {MEASURED} (measured)" in text
    assert "w8a8 1.0229 1.0200 1.0" in text  # 6.26 / 6.12 and 5.62 / 5.51


def test_speed_ups_that_other_studies_printed_stand_beside_ours(page: str) -> None:
    *_, compared = _tables(page, "fundamentals")
    assert _body(compared) == [
        ["10", "1.24", "1.41", "1.10 [1.10]", "1.10 [1.10]"],  # 33.9 / 27.4 and 18.1 / 12.8
        ["1000", "–", "10.2", "11.0 [11.0]", "11.0 [11.0]"],
    ]


def test_times_and_bytes_stand_beside_theory_and_the_studies(page: str) -> None:
    text = _section(page, "profiling")
    assert "fp in float32: prefill is flat at 65.1 ms up to 100 tokens" in text
    assert "flat at 39.2 ms up to 304 tokens" in text, "by the source study's own means"
    assert "w8a8-integer in float32 is 1.00 times as fast." in text
    assert "each written token adds 46,080 bytes" in text
    assert "tiny-llama: a KV cache makes it write 5 tokens after 1,000 5.00 times as fast" in text
    assert "exactly what the configuration predicts" in text
    assert "Extrapolated to 32 layers, with a standard error of 0" in text
    assert "the same tokens are written" in text
    assert "1,000: 5.00 [" in text
    assert "needs 10.0 % of its extra memory" in text
    assert "cudnn was not timed everywhere: this device has no such kernel" in text
    assert "There is no figure for energy: there is no counter." in text
    assert "&lt;b&gt;Hello&lt;/b&gt; to you" in page, "what a model writes is text"
    shown = [_body(table) for table in _tables(page, "profiling")]
    assert [len(rows) for rows in shown] == [2 * 6 * 3, 3, 4, 6, 2, 3 * 6 * 3, 2 * 3 + 2]
    assert shown[0][0][-1] == "0", "no sample is contaminated"


def test_caches_on_few_bits_have_their_bytes_costs_and_verdicts(page: str) -> None:
    text = unescape(_section(page, "kv_cache"))
    for said in (
        "static-4 13.2 MiB (14.7 %)",
        "static-3 raises the perplexity by 1.36 % [1.19 % to 1.52 %], with a KL divergence of 0.027 [0.024, 0.030]",
        "entropy is worse than static-3 by divergence: 0.013 nats [0.012, 0.015]",
        "entropy is better than random by divergence",
        "quanto-4 stores 6.50 bits for each number where static-4 stores 4.70",
        "Under w8a8-integer not everything could be measured of quanto-4: the library optimum-quanto can't be",
        "time rose from 26.754 to 35.667 s (33 % more)",
        "would need 6,428 tokens to fill 296.2 MB",
        "Equal memory of its static and its dynamic policy shows that nothing was stored on fewer bits",
        "35.8 % is no share of 200 questions",
    ):
        assert said in text
    lengths, policies, pairs, studies = (_body(table) for table in _tables(page, "kv_cache"))
    assert [len(lengths), len(policies), len(pairs)] == [2 * 7 * 3, 2 * 7, 2 * 3]
    assert policies[0][:4] == ["float", "fp", "the model's dtype", "32.0"]
    assert policies[4][2] == "by entropy, 3 bits on average; keys per channel, groups of 64"
    assert len(policies[-1]) == 4, "a reason in place of numbers"
    assert [row[4] for row in studies] == ["static-4, fp", "entropy, fp", "entropy, w8a8-integer"]


def test_what_tokens_are_to_the_model_is_told_beside_the_study(page: str) -> None:
    text = " ".join(unescape(re.sub(r"<[^>]*>", " ", page.replace("&lt;b&gt;", "").replace("&lt;/b&gt;", ""))).split())
    assert "After “tale” the mean entropy is 1.50 nats over the first 64 tokens and 0.322 over the last 64" in text
    assert "calls the entropy of SmolLM-135M moderate, 0.5 to 1.8: 3 of our 4 stretches have a mean in that" in text
    assert "a loop of 5 tokens begins after 64 tokens and goes on to the end." in text
    assert "no loop of a single period runs to the end. The text as such had ended after 100 tokens." in text
    assert "the most salient words are, in this order, “Tell”, “me”, “a”, “story”." in text
    assert "The attention received is not known: it keeps that to itself." in text
    assert "2 rare ones have a mean rarity of 5.75" in text
    assert "By the token, common words surprise more than rare ones" in text
    assert "saw rarity go from 1.667 to 5.1402 with “petrichor”, once. Here that word has 5.42" in text
    assert "<b>Once</b>" not in page


def test_what_temperature_does_is_told_with_the_claims_and_samples_beside(page: str) -> None:
    text = unescape(re.sub(r"<[^>]*>", "", _section(page, "generation")))
    assert "so all seeds write the same text; it is written once" in text
    assert "At temperature 0.5, 50 % of a prompt's samples are different texts, with a self-BLEU of 1.00 [1.00" in text
    assert "From 0 to 1, paired by prompt, self-BLEU changes by −0.99" in text
    assert "as claimed; distinct-2 by 0.941" in text
    assert "What is written at 0.5 has a perplexity of 2.34 [2.12, 2.59] under the model itself" in text
    tables = [_body(table) for table in _tables(page, "generation")]
    measures = next(rows for rows in tables if rows[0][0] == "distinct-1")
    assert [len(row) for row in measures] == [1 + 3] * len(MEASURES)
    first, *every = [rows for rows in tables if rows[0][1] == "all"]
    assert [row[:2] for row in first] == [["0", "all"], ["0.5", "3"], ["1", "3"]]
    assert [len(rows) for rows in every] == [1 + 2 + 2] * 3
    assert first[0][4].startswith("<i>tale</i> at 0.0 with 3 long"), "on one line, and as text"
    assert len(first[0][4]) == SHOWN_CHARACTERS + 1
    assert "<i>" not in page


def changes(**bounds: tuple[float, float]) -> pd.DataFrame:
    """Rows of TEMPERATURES in which every measure but these changes for sure and upwards from 0 to 1."""
    rows = [
        {"measure": measure, "temperature": temperature, "value": 0.5, "value_low": 0.4, "value_high": 0.6}
        | {"change": 0.2, "change_low": low, "change_high": high}
        for measure, (low, high) in {**dict.fromkeys(MEASURES, (0.1, 0.3)), **bounds}.items()
        for temperature in (0.0, 1.0)
    ]
    return pd.DataFrame(rows)


def test_a_claim_is_told_by_its_interval_alone() -> None:
    reported = {"study": "It", "low": "less", "high": "more"}
    said = said_of_temperature(changes(repeated_4=(-0.1, 0.1), perplexity=(-0.3, -0.1)), reported)[-1]
    verdicts = [part.partition("], ")[2].rstrip(".") for part in said.split("; ")]
    against, untold = "against the claim", "which these prompts can't tell from none"
    assert verdicts == [against, "as claimed", untold, against]


def test_tokens_are_shaded_by_halves_and_end_where_the_text_does(page: str) -> None:
    tokens = pd.DataFrame({"text": list("abcdef"), "position": range(6), "own": [True] * 4 + [False] * 2})
    tokens = tokens.assign(generated=~tokens["own"], saliency_norm=[1.0, 2, 4, 8, 64, 1000])
    tokens = tokens.assign(first_saliency_norm=[8.0, 4.1, 0.0, 0.01, np.nan, np.nan])
    found = generation_module.shaded(tokens, 1)
    assert [token.shade for token in found.prompt_for_first] == [6, 6, 0, 0]
    assert [token.shade for token in found.prompt_for_all] == [0, 1, 2, 3]
    assert [(token.text, token.shade) for token in found.written_for_all] == [("e", 6)]
    assert '<span class="shade-6" title="10.0">Tell</span>' in page
    assert " &lt;b&gt;story&lt;/b&gt;.</span>" in page


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour, channels from 0 to 255 (WCAG 2.2)."""
    linear = [
        channel / 255 / 12.92 if channel <= 10.31475 else ((channel / 255 + 0.055) / 1.055) ** 2.4 for channel in colour
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def themed(name: str) -> list[list[int]]:
    """A colour of the page by its name: red, green and blue in light, then in dark."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    [found] = re.findall(rf"--{name}: light-dark\((.+)\);", style)
    hexadecimal = [[int(one[start : start + 2], 16) for start in (0, 2, 4)] for one in re.findall(r"#(\w{6})", found)]
    return hexadecimal or [list(map(int, one.split())) for one in re.findall(r"rgb\(([\d ]+)\)", found)]


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """The contrast ratio of two colours (WCAG 2.2)."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_shaded_text_can_be_read_in_light_and_in_dark() -> None:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    shares = [int(share) / 100 for share in re.findall(r"\.shade-\d .*var\(--heat\) (\d+)%", style)] + [1.0]
    assert len(shares) == generation_module.DARKEST
    assert shares == sorted(shares)
    for heat, paper, ink in zip(themed("heat"), themed("paper"), themed("ink"), strict=True):
        for share in shares:
            ground = [share * above + (1 - share) * below for above, below in zip(heat, paper, strict=True)]
            assert contrast(ink, ground) >= 4.5, "level AA"


@pytest.mark.parametrize("name", ["ink", "muted", "accent", "warn"])
def test_every_colour_of_text_can_be_read_on_every_ground(name: str) -> None:
    for ground in ("paper", "soft", "warn-soft"):
        for text, below in zip(themed(name), themed(ground), strict=True):
            assert contrast(text, below) >= 4.5, "level AA"


def test_the_studys_rarities_are_the_same_in_its_figure_and_on_the_page() -> None:
    printed = yaml.safe_load((TEMPLATES / "reported.yaml").read_text(encoding="utf-8"))["features"]
    assert list(STUDY_RARITY.values()) == printed["rarity"]


def test_the_words_that_a_study_names_are_looked_for_among_the_most_salient() -> None:
    words = ["Tell", " me", " a", " tort", "oise", "."]
    features = pd.DataFrame({"prompt": "tale", "text": words, "position": range(6), "own": True})
    features = features.assign(first_saliency_norm=[5.0, 1.0, 0.5, 2.0, 9.0, 0.1])
    assert [word.text for word in generation_module.salient_words(features)] == ["tortoise", "Tell", "me", "a"]
    reported = {"study": "The report", "prompt": "Tell me a tortoise.", "words": ["tortoise", "me"]}
    said = generation_module.said_of_saliency(features, {"tale": "Tell me a tortoise."}, reported)
    assert said[1] == (
        "The report names tortoise, me in this prompt; 1 of these 2 are among as many most salient words here, "
        "of 4 in all."
    )
    assert len(generation_module.said_of_saliency(features, {"tale": "Another."}, reported)) == 1


def test_a_study_without_the_others_word_says_nothing_of_it() -> None:
    table = summarize_insertions({"tiny": made_up_insertions().query("word != 'petrichor'")})
    reported = yaml.safe_load((TEMPLATES / "reported.yaml").read_text(encoding="utf-8"))["features"]
    assert not any("petrichor" in sentence for sentence in generation_module.said_of_insertions(table, reported))


def test_other_work_on_the_machine_is_said_beside_the_times() -> None:
    table = pd.DataFrame({"contaminated": [0, 2], "samples": [3, 3]})
    said = profiling_module._contaminated([table, table])
    assert said is not None
    assert said.startswith("Other work ran on the machine during 4 of 12 samples")
    assert profiling_module._contaminated([table.head(1)]) is None


def test_a_cache_that_changes_what_is_written_is_called_so() -> None:
    speed = cache_speed({"a": made_up_cache()})
    wrong = made_up_checks().assign(difference=1.0, same_tokens=False)
    said = " ".join(profiling_module.said_of_cache(speed, wrong))
    assert "do NOT agree" in said
    assert "NOT the same tokens everywhere" in said


def test_both_experiments_are_told_with_their_intervals_and_checks(page: str) -> None:
    text = _section(page, "fundamentals")
    assert "All 8 checks hold" in text
    assert "sketches: A Pen; licence: CC0-1.0" in text
    accuracy, checks, latency, _ = map(_body, _tables(page, "fundamentals"))
    assert [(cells[0], cells[1]) for cells in accuracy] == [(name, bits) for name in ("last", "all") for bits in "842"]
    assert accuracy[0][3].startswith("90.0 % [")
    assert accuracy[0][4] == "0.00 % [0.00 %, 0.00 %]"
    assert {cells[-1] for cells in checks} == {"yes"}
    assert len(latency) == 2 * 2 * 2
    assert {cells[-1] for cells in latency} == {"0"}


def test_the_whole_configuration_is_on_the_page(page: str) -> None:
    printed = Parsed(page).texts["pre"][-1]
    config = study(caveat="Rounded once before.", attribution="A. Body")
    assert yaml.safe_load(printed) == config


@pytest.mark.parametrize("schemes", [("fp", "w8a8", "w4a4"), ("fp",)])
def test_a_study_without_smoothing_and_rotation_still_has_a_whole_page(
    schemes: tuple[str, ...], tmp_path: Path
) -> None:
    page = _page(study(schemes=schemes), tmp_path)
    parsed = Parsed(page)
    assert parsed.faults == []
    assert tuple(attributes["id"] for attributes in parsed.named("section")) == SECTIONS
    assert "No scheme of this study smooths." in page
    assert "No scheme of this study rotates." in page
    assert "alone gains" not in page
    assert len(
        parsed.named("img")
    ) == 2 + 3 + 3 + PROFILE_FIGURES + CACHE_FIGURES + GENERATION_FIGURES + ATTENTION_FIGURES + 2 + ("w4a4" in schemes)


def test_what_a_configuration_predicts_stands_beside_what_was_measured(page: str) -> None:
    models, batches, stored, studies, gpus = (_body(table) for table in _tables(page, "capacity"))
    assert [cells[0] for cells in models] == ["llama-3-8b", "smollm2-135m", MEASURED]
    assert models[0][1:] == ["8,030,261,248", "all", "14.96", "8.46", "5.46", "128.0"]
    assert batches[0][1:] == ["1.000", "65", "145"]
    assert batches[1][3] == "can't be split", "its 9 heads, on 2 GPUs"
    assert {cells[1]: cells[4] for cells in stored} == {scheme: "–" if scheme in SKIPPED else "256" for scheme in EVERY}
    assert next(cells[5] for cells in stored if cells[1] in SKIPPED).startswith("the library bitsandbytes can't")
    assert [cells[2] for cells in studies[:5]] == ["6.43", "11.98", "0.5", "136", "296"]
    assert [cells[4] for cells in studies[:5]] == ["8.03", "14.96", "0.125", "520", "1,160"]
    assert gpus[-1][:4] == [
        "this machine: A Processor, threads: 2 CPU",
        "–",
        "20.0",
        "float32 0.100 → 5.0, bfloat16 1.00 → 50, int8 2.00 → 100",
    ]
    assert gpus[-1][4] == "measured; samples contaminated by other work: 5 of 15, taken all the same: 0"
    text = _section(page, "capacity")
    assert "and in 8-bit integers by the kernel int_mm ." in text
    assert "A matrix times a vector reads 20.0 GB/s, a copy reads and writes 10.0 GB/s, and the larger figure" in text
    assert f"{MEASURED}: the bytes of {len(EVERY) - 1} of {len(EVERY)} schemes are both predicted and measured." in text
    assert "Measured less predicted is 256 bytes" in text
    assert "A layer of llama-3-8b does 1.01 operations per byte when it decodes for 1 request of 512 tokens" in text


def test_a_machine_without_an_integer_kernel_has_no_roof_for_integers(tmp_path: Path) -> None:
    config = study(schemes=("fp",))
    write_results(config, tmp_path)
    rows = read_table(MACHINE, tmp_path / "machine.parquet").assign(int8_giga_per_s=None, int8_kernel=None)
    write_table(MACHINE, rows, tmp_path / "machine.parquet")
    render(TEMPLATES, tmp_path / "page.html", contents(config, tmp_path, TEMPLATES / "reported.yaml"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "but not in 8-bit integers, of which torch has no exact product here." in _section(page, "capacity")
    assert _body(_tables(page, "capacity")[4])[-1][3] == "float32 0.100 → 5.0, bfloat16 1.00 → 50"


def test_a_model_without_a_prediction_is_said_to_have_none() -> None:
    rows = pd.DataFrame([{"model": "m", "difference_bytes": None, "measured_bytes": 5}]).astype(
        {"difference_bytes": "Int64"}
    )
    assert sentences.stored(rows) == ["m: no scheme could be both predicted and measured."]
    two = pd.DataFrame({"model": "m", "difference_bytes": [-5, 10], "measured_bytes": [1000, 1000]})
    assert "Measured less predicted is -5 bytes to 10 bytes" not in sentences.stored(two)[0]
    assert "Measured less predicted is −5 to 10 bytes, at most 1.0000 % of the model." in sentences.stored(two)[0]


def test_a_cuda_run_says_so(tmp_path: Path) -> None:
    config = study(schemes=("fp",))
    write_results(config, tmp_path)
    runs = read_table(RUN, tmp_path / "summary/runs.parquet").assign(device="cuda", device_name="A Card")
    write_table(RUN, runs, tmp_path / "summary/runs.parquet")
    render(TEMPLATES, tmp_path / "page.html", contents(config, tmp_path, TEMPLATES / "reported.yaml"))
    assert "A Card (cuda)" in _section((tmp_path / "page.html").read_text(encoding="utf-8"), "machine")


# --- sentences ---------------------------------------------------------------------------------------------------


ENTRIES: dict[str, Any] = study()["schemes"]


def _schemes(**ratios: tuple[float, float, float]) -> pd.DataFrame:
    """Rows of a SCHEMES table with these ratios and their intervals; each scheme takes fewer bytes than the last."""
    rows = [
        {
            "model": "m",
            "dtype": "float32",
            "scheme": scheme.replace("_", "-"),
            "engine": ENTRIES[scheme.replace("_", "-")].get("engine", "simulated"),
            "weights_bytes": 1000 - 10 * place,
            "perplexity": 20 * middle,
            "perplexity_low": 18 * middle,
            "perplexity_high": 22 * middle,
            "ratio": middle,
            "ratio_low": low,
            "ratio_high": high,
            "skipped": None,
        }
        for place, (scheme, (low, middle, high)) in enumerate({"fp": (1.0, 1.0, 1.0), **ratios}.items())
    ]
    return pd.DataFrame(rows)


def _answers(schemes: pd.DataFrame, gains: pd.DataFrame) -> list[str]:
    return [
        *sentences.accuracy(schemes, "fp", ENTRIES),
        *sentences.remedies(gains, schemes, "m", ["w8a8-smooth"]),
    ]


def _gains(ratio: tuple[float, float, float], closed: tuple[float, float, float]) -> pd.DataFrame:
    low, middle, high = ratio
    row = {"model": "m", "scheme": "w8a8-smooth", "base": "w8a8", "ratio": middle, "ratio_low": low, "ratio_high": high}
    shares = dict(zip(("gap_closed_low", "gap_closed", "gap_closed_high"), closed, strict=True))
    return pd.DataFrame([{**row, **shares}])


NO_GAINS = _gains((1, 1, 1), (0, 0, 0)).head(0)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((312.0, 361.2, 419.3), "W4A4: w4a4 multiplies the perplexity by 361 [312, 419]: the model has collapsed."),
        ((10.01, 11, 12), "W4A4: w4a4 multiplies the perplexity by 11.0 [10.0, 12.0]: the model has collapsed."),
        (
            (1e7, 8.5e7, 9e8),
            "W4A4: w4a4 multiplies the perplexity by 8.50·10⁷ [1.00·10⁷, 9.00·10⁸]: the model has collapsed.",
        ),
        ((9.0, 11.0, 13.0), "W4A4: w4a4 raises the perplexity by 1000.0 % [800.0 % to 1200.0 %]."),
        ((1.024, 1.0292, 1.0342), "W4A4: w4a4 raises the perplexity by 2.9 % [2.4 % to 3.4 %]."),
        ((1.00001, 1.00002, 1.00003), "W4A4: w4a4 raises the perplexity by 2·10⁻³ % [1·10⁻³ % to 3·10⁻³ %]."),
        ((0.97, 0.98, 0.99), "W4A4: w4a4 lowers the perplexity, to 0.9800 [0.9700, 0.9900] of the float model's."),
        (
            (0.998, 1.001, 1.004),
            "W4A4: w4a4 shows no difference from the float model that this sample could tell from chance "
            "([0.9980, 1.0040]).",
        ),
        (
            (0.99, 0.995, 1.002),
            "W4A4: w4a4 shows no difference from the float model that this sample could tell from chance "
            "([0.9900, 1.0020]).",
        ),
        (
            (1.0, 1.0, 1.0),
            "W4A4: w4a4 shows no difference from the float model that this sample could tell from chance "
            "([1.0000, 1.0000]).",
        ),
    ],
)
def test_what_a_scheme_does_is_said_as_its_interval_allows(bounds: tuple[float, float, float], expected: str) -> None:
    said = _answers(_schemes(w4a4=bounds), NO_GAINS)
    assert said[:2] == ["m has a perplexity of 20.0 [18.0, 22.0] in float (float32).", expected]
    assert len(said) == 3


W8A8 = (1.02, 1.03, 1.04)
NONE = (NAN,) * 3


@pytest.mark.parametrize(
    ("ratio", "closed", "smooth", "expected"),
    [
        (
            (0.98, 0.987, 0.99),
            (0.31, 0.46, 0.58),
            W8A8,
            "Going from w8a8 to w8a8-smooth closes 46 % [31 % to 58 %] of its gap to float.",
        ),
        (
            (0.4, 0.46, 0.5),
            (0.49, 0.54, 0.59),
            (140.0, 166.0, 190.0),
            "Going from w8a8 to w8a8-smooth closes 54 % [49 % to 59 %] of its gap to float, which does not rescue it.",
        ),
        ((1.01, 1.02, 1.03), (-0.9, -0.5, -0.1), W8A8, "Going from w8a8 to w8a8-smooth makes it worse, by 2.0 %."),
        (
            (0.999, 1.0, 1.001),
            (-0.1, 0.0, 0.1),
            W8A8,
            "Going from w8a8 to w8a8-smooth makes no difference that this sample could tell from chance.",
        ),
        (
            (0.97, 0.98, 0.99),
            NONE,
            W8A8,
            "Going from w8a8 to w8a8-smooth lowers the perplexity by 2.0 %, from a base with no measurable gap to "
            "float.",
        ),
    ],
)
def test_what_a_remedy_gains_is_said_as_its_interval_allows(
    ratio: tuple[float, float, float],
    closed: tuple[float, float, float],
    smooth: tuple[float, float, float],
    expected: str,
) -> None:
    assert _answers(_schemes(w8a8=W8A8, w8a8_smooth=smooth), _gains(ratio, closed))[-1] == expected


def test_every_model_gets_its_own_answers() -> None:
    both = pd.concat([_schemes(w8a8=W8A8), _schemes(w8a8=(0.5, 0.6, 0.7)).assign(model="n")])
    said = _answers(both, NO_GAINS)
    assert [sentence.split()[0] for sentence in said] == ["m", "W8A8:", "No", "n", "W8A8:", "No"]
    assert "raises" in said[1]
    assert "lowers" in said[4]
    assert said[2].endswith("than these: w8a8, fp.")
    assert said[5].endswith("than these: w8a8.")


def test_a_family_is_told_by_its_best_and_its_worst() -> None:
    said = _answers(_schemes(w8a8_smooth=(1.0, 1.01, 1.02), w8a8=W8A8, w8a8_search=(1.001, 1.002, 1.003)), NO_GAINS)
    assert said[1] == (
        "W8A8: w8a8-search raises the perplexity by 0.2 % [0.1 % to 0.3 %], the best of 3; the worst, w8a8, raises the "
        "perplexity by 3.0 % [2.0 % to 4.0 %]."
    )


def test_an_integer_engine_is_held_against_the_same_scheme_simulated() -> None:
    said = _answers(_schemes(w8a8=W8A8, w8a8_integer=(1.02, 1.030103, 1.04)), NO_GAINS)
    assert said[2] == "w8a8-integer multiplies integers; its perplexity is within 0.0100 % of w8a8, simulated."
    alone = _answers(_schemes(w8a8_smooth=W8A8, w8a8_integer=W8A8), NO_GAINS)
    assert not any("multiplies integers" in sentence for sentence in alone)


def test_a_scheme_that_could_not_be_run_is_named_with_the_reason_and_ranked_nowhere() -> None:
    table = pd.concat([_schemes(w8a8=W8A8), _schemes(nf4_bnb=W8A8).tail(1)], ignore_index=True)
    table.loc[2, ["perplexity", "ratio", "ratio_low", "ratio_high", "weights_bytes"]] = [NAN, NAN, NAN, NAN, 0]
    table.loc[2, "skipped"] = "there is no library."
    said = _answers(table, NO_GAINS)
    assert said[1].startswith("W8A8: ")
    assert said[2].endswith(": w8a8, fp.")
    assert said[3] == "nf4-bnb could not be run: there is no library."
    assert len(said) == 4


def test_ranges_name_the_largest_input_of_the_layer_with_and_without_the_first_token() -> None:
    assert sentences.ranges(ranges(), MEASURED, 2) == (
        "In decoder layer 2 inputs outreach weights furthest at model.layers.2.mlp.up_proj, whose largest input "
        "(channel 3) is 60 times its largest weight; without the first token of each window at "
        "model.layers.2.mlp.up_proj, 6.0 times."
    )


def test_the_largest_input_of_all_may_be_negative() -> None:
    assert sentences.massive(ranges(), MEASURED) == (
        "The largest input anywhere is 50.0, at lm_head, channel 3; without the first token of each window it is 5.00, "
        "at lm_head, channel 7."
    )
    table = ranges()
    table.loc[table["layer"] == "model.layers.0.mlp.up_proj", "activation_min"] = -777.0
    assert sentences.massive(table, MEASURED).startswith(
        "The largest input anywhere is 777, at model.layers.0.mlp.up_proj"
    )


def test_smoothing_says_what_was_folded_and_why_the_rest_was_not() -> None:
    assert sentences.smoothing(sites()) == (
        f"{LAYERS} norms of {2 * LAYERS + 1} places were folded; the float logits before and after agree to a relative "
        "error of 3.0·10⁻⁷ (allowed: 10⁻⁴). Refused: model.layers.0.post_norm, model.layers.1.post_norm and 2 more, "
        "since its output is also read by Tensor.add. Refused: model.norm, since it feeds lm_head."
    )
    assert "Refused" not in sentences.smoothing(sites().loc[lambda table: table["folded"]])


def test_smoothing_counts_linear_layers_apart_from_norms() -> None:
    said = sentences.smoothing(sites(SEARCHED))
    assert said.startswith(f"{LAYERS} norms and {LAYERS} linear layers of {3 * LAYERS + 1} places were folded; ")


def test_a_search_says_what_it_chose_and_what_that_gained() -> None:
    errors = alphas()
    half = errors[errors["alpha"] == 0.5]["error"].mean()  # (0.001 + 0.01·0.01 + 0.001 + 0.01·0.04) / 2
    assert half == pytest.approx(0.00125)
    assert sentences.search(errors) == (
        "The search chose strengths of 0.4 to 0.7: the mean output error on calibration text is 0.0010 of the outputs' "
        "power, against 0.0012 at α = 0.5."
    )
    of_norms = errors[errors["site"].str.endswith("norm")]
    assert sentences.search(of_norms).startswith("The search chose a strength of 0.4: ")


def test_a_rotation_says_what_it_touches_and_how_well_the_proof_held() -> None:
    assert sentences.rotation(paths()) == (
        f"{2 * LAYERS} layers read the rotated stream and {2 * LAYERS} write to it, with {LAYERS} norms absorbed; "
        f"{LAYERS} value layers took up a rotation of heads, and the inputs of {LAYERS} layers are rotated as the "
        "model runs. The float logits before and after agree to a relative error of 4.0·10⁻⁷ (allowed: 10⁻⁴)."
    )
    without = paths()[paths()["role"] != "value"]
    assert "0 value layers took up" in sentences.rotation(without)


NOT_FLATTERED = ", so whatever the weights were rounded to before does not flatter them on this grid."
COSTS_NOTHING = f"leaving the model's own basis costs nothing by this measure{NOT_FLATTERED}"
ON_SUCH_A_GRID = (
    "they were on such a grid before, or nearly. That flatters 4-bit schemes that do not rotate, and rotation gives it "
    "up."
)


@pytest.mark.parametrize(
    ("own", "rotated", "said", "verdict"),
    [
        (48.0, 21.9, ("48.0", "21.9"), ON_SUCH_A_GRID),
        (INFINITY, 21.9, ("∞", "21.9"), ON_SUCH_A_GRID),
        (25.0, 21.9, ("25.0", "21.9"), ON_SUCH_A_GRID),
        (24.8, 21.9, ("24.8", "21.9"), "leaving the model's own basis costs 2.9 dB by this measure."),
        (21.92, 21.9, ("21.9", "21.9"), COSTS_NOTHING),
        (INFINITY, INFINITY, ("∞", "∞"), COSTS_NOTHING),
        (21.7, 21.9, ("21.7", "21.9"), f"leaving the model's own basis gains 0.20 dB by this measure{NOT_FLATTERED}"),
        (18.0, 21.9, ("18.0", "21.9"), f"leaving the model's own basis gains 3.9 dB by this measure{NOT_FLATTERED}"),
    ],
)
def test_a_rotation_says_what_leaving_the_basis_of_the_weights_does_to_4_bits(
    own: float, rotated: float, said: tuple[str, str], verdict: str
) -> None:
    before = (
        f"Rounded to 4 bits in groups of 32, the weights have a median SQNR of {said[0]} dB as they are and of "
        f"{said[1]} dB rotated: "
    )
    table = basis(own, rotated)
    zeros = pd.DataFrame([{"layer": "zeros", "weight_sqnr_db": NAN, "rotated_weight_sqnr_db": NAN}])
    assert sentences.basis(table) == before + verdict
    assert sentences.basis(pd.concat([table, zeros])) == before + verdict, "a layer of zeros tells nothing"


def test_a_rotation_of_layers_without_groups_says_that_none_was_rounded() -> None:
    assert sentences.basis(basis().head(0)).startswith("No weight was rounded to 4 bits in groups of 32: no layer's")


# --- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0, 3, "0"),
        (-0.0, 3, "0"),
        (NAN, 3, "–"),
        (INFINITY, 3, "∞"),
        (-INFINITY, 3, "−∞"),
        (1, 3, "1.00"),
        (26.9134, 4, "26.91"),
        (-2.5, 3, "−2.50"),
        (361.16, 3, "361"),
        (9720.1, 4, "9,720"),
        (123456, 3, "123,456"),
        (999_999.6, 3, "1,000,000"),
        (1e6, 3, "1.00·10⁶"),
        (8.5e7, 3, "8.50·10⁷"),
        (-8.5e7, 2, "−8.5·10⁷"),
        (1e300, 1, "1·10³⁰⁰"),
        (0.05, 2, "0.050"),
        (0.0001, 3, "0.000100"),
        (0.00001234, 3, "1.23·10⁻⁵"),
        (-0.00001234, 3, "−1.23·10⁻⁵"),
    ],
)
def test_numbers_have_the_digits_that_count(value: float, digits: int, expected: str) -> None:
    assert number(value, digits) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, "1.0000"),
        (0.98704, "0.9870"),
        (1.9999, "1.9999"),
        (0.5, "0.500"),
        (2.0, "2.00"),
        (0.0, "0"),
        (361.16, "361"),
        (8.5e7, "8.50·10⁷"),
        (NAN, "–"),
        (INFINITY, "∞"),
    ],
)
def test_ratios_near_one_have_four_decimals(value: float, expected: str) -> None:
    assert ratio(value) == expected


@pytest.mark.parametrize(
    ("share", "digits", "expected"),
    [
        (0.0, 1, "0.0 %"),
        (0.029163, 1, "2.9 %"),
        (0.45724, 0, "46 %"),
        (-0.5, 0, "−50 %"),
        (1.0, 1, "100.0 %"),
        (12.5, 1, "1250.0 %"),
        (0.00001, 1, "1·10⁻³ %"),
        (-0.00001, 1, "−1·10⁻³ %"),
        (0.002, 0, "0.2 %"),
        (NAN, 1, "–"),
        (INFINITY, 1, "∞"),
    ],
)
def test_shares_never_read_as_nothing_where_there_is_something(share: float, digits: int, expected: str) -> None:
    assert percent(share, digits) == expected


def test_intervals_have_both_ends() -> None:
    assert interval(-0.5, 24.5) == "[−0.500, 24.5]"
    assert interval(NAN, 1e9, 2) == "[–, 1.0·10⁹]"
    assert ratio_interval(0.98183, 361.2) == "[0.9818, 361]"


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (49.007, "49.0 s"),
        (119.9, "119.9 s"),
        (119.97, "120.0 s"),
        (120, "2 min 0 s"),
        (179.99, "2 min 59 s"),
        (3723, "62 min 3 s"),
    ],
)
def test_durations_are_in_seconds_up_to_two_minutes(duration: float, expected: str) -> None:
    assert seconds(duration) == expected


def test_bytes_are_in_gibibytes() -> None:
    assert gibibytes(538_060_288) == "0.50 GiB"
    assert gibibytes(0) == "0.00 GiB"
