"""Text from outside on the page: whatever it is, it is text there, and all of the page stays what it was."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferometer.report.contents import contents
from inferometer.report.page import render
from inferometer.visible import DIRECTIONS, visible
from tests.synthetic import study, write_results
from tests.unit.test_report import Parsed

TEMPLATES = Path(__file__).parents[2] / "report"
HOSTILE = [
    "<script>alert(1)</script>",
    "</script></style></title></pre>--><svg onload=alert(1)>",
    "\" onmouseover='alert(1)' `alert(1)`",
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% raw %} {# no #} &lt; &#x3C; &amp",
    "\u202egnp.exe\u2069 \u2067open",
    "NUL \x00 ESC \x1b[31m CSI \x9b BEL \x07",
    "half a pair \ud83d \udc00",
    "z\u0301" + "\u0301" * 60,
    "zero\u200bwidth\ufeff\u2060 and 👩\u200d🚀",
    '=HYPERLINK("http://example.org") @x +1 -1',
    "wide" * 200,
    "lines\r\nof\u2028text\u2029here\x85end",
]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hostile")
    config = study()
    write_results(config, folder)
    return contents(config, folder, TEMPLATES / "reported.yaml")


def spoiled(context: dict[str, Any], text: str) -> dict[str, Any]:
    """The page's content with a text wherever one may come in from outside."""
    models = [
        dataclasses.replace(
            model,
            licence=text,
            attribution=text,
            caveat=text,
            manifest=dataclasses.replace(model.manifest, origin=text, architecture=text),
        )
        for model in context["models"]
    ]
    stored = text.encode("utf-8", "replace").decode("utf-8")  # tables hold no halves of pairs
    generation, profiling = context["generation"], context["profiling"]
    writers = [
        dataclasses.replace(
            model,
            saliency_said=[f"The words are “{visible(text)}”, so they are."],
            written=[{**row, "no_attention": text} for row in model.written],
            shaded={
                name: dataclasses.replace(
                    shaded,
                    prompt_for_first=[dataclasses.replace(token, text=text) for token in shaded.prompt_for_first],
                )
                for name, shaded in model.shaded.items()
            },
            temperature=dataclasses.replace(
                model.temperature,
                samples={
                    name: [{**row, "text": text} for row in rows] for name, rows in model.temperature.samples.items()
                },
            ),
        )
        for model in generation.models
    ]
    timed = [
        dataclasses.replace(model, baseline=[{**row, "text": text} for row in model.baseline])
        for model in profiling.models
    ]
    return {
        **context,
        "title": text,
        "models": models,
        "runs": context["runs"].assign(device_name=stored, features=stored),
        "generation": dataclasses.replace(generation, models=writers, prompts=dict.fromkeys(generation.prompts, text)),
        "profiling": dataclasses.replace(profiling, models=timed),
        "sources": [
            dataclasses.replace(source, origin=text, licence=text, attribution=text) for source in context["sources"]
        ],
        "reproduce": dataclasses.replace(context["reproduce"], configuration=f"title: {stored}"),
    }


def _page(context: dict[str, Any], text: str, folder: Path) -> Parsed:
    render(TEMPLATES, folder / "page.html", spoiled(context, text))
    with (folder / "page.html").open(encoding="utf-8", newline="") as page:
        return Parsed(page.read())


def _shape(page: Parsed) -> list[tuple[str, tuple[str, ...]]]:
    """Tags and names of attributes, in order."""
    return [(tag, tuple(attributes)) for tag, attributes in page.elements]


@pytest.fixture(scope="module")
def harmless(context: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Parsed:
    return _page(context, "harmless", tmp_path_factory.mktemp("harmless"))


def _check(page: Parsed, harmless: Parsed, text: str) -> None:
    assert page.faults == []
    assert _shape(page) == _shape(harmless), "no element and no attribute more or less"
    assert page.texts["h1"] == [visible(text)]
    assert any(visible(text) in cell for cell in page.texts["td"])
    assert any(image["alt"] for image in page.named("img"))
    assert {link["href"][0] for link in page.named("a")} == {"#"}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text: str, context: dict[str, Any], harmless: Parsed, tmp_path: Path) -> None:
    _check(_page(context, text, tmp_path), harmless, text)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=()), min_size=1))
def test_any_text_is_text(text: str, context: dict[str, Any], harmless: Parsed, tmp_path: Path) -> None:
    _check(_page(context, text, tmp_path), harmless, text)


def test_prompts_of_the_configuration_come_through_the_whole_way(tmp_path: Path) -> None:
    """From YAML to the page: what the configuration holds is printed so that it can be read back."""
    config = study(title="\x00 </code></pre><script>alert(1)</script> \ud800 \u202e", caveat=HOSTILE[5])
    config["generation"]["sampling"]["prompts"] = {"fact": HOSTILE[6]}
    write_results(config, tmp_path / "results")
    context = contents(config, tmp_path / "results", TEMPLATES / "reported.yaml")
    render(TEMPLATES, tmp_path / "page.html", context)
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.faults == []
    assert not DIRECTIONS.intersection(page.texts["pre"][-1])
    assert yaml.safe_load(page.texts["pre"][-1]) == config, "what is copied from the page is the same study"


def test_what_reaches_a_csv_never_begins_as_a_formula_does() -> None:
    """Tables that are copied as CSV hold names of the configuration and inserted words, and both have patterns."""
    schema = yaml.safe_load((TEMPLATES.parent / "config/schema.yaml").read_text(encoding="utf-8"))
    definitions = schema["$defs"]
    for pattern in (definitions["name"]["pattern"], definitions["words"]["items"]["pattern"]):
        for first in "=+-@\t\r|%\"',;":
            assert not re.search(pattern, f"{first}cmd"), f"{pattern} allows {first!r} at the beginning"
        assert re.search(pattern, "name")
