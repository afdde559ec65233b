"""Names of headings and tables: made of words that stay, never twice, and reached from the navigation."""

import re

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from inferometer.report.anchors import Heading, anchored, headings

BODY = """<section id="one" class="wide">
<h2>One</h2>
<h3>tiny-llama: what <code>few</code> bits &amp; bytes cost?</h3>
<div class="scroll" tabindex="0" role="region" aria-label="All schemes"><table></table></div>
<h3 id="own">Its own</h3>
<div class="scroll" tabindex="0" role="region" aria-label="All schemes"><table></table></div>
</section>
<section id="two">
<h2>Two</h2>
<h3>Its own</h3>
<div class="scroll" id="kept" tabindex="0" role="region" aria-label="All schemes"><table></table></div>
</section>
"""


def ids(page: str) -> list[str]:
    return re.findall(r'\bid="([^"]+)"', page)


def test_headings_and_tables_are_named_after_their_section_and_their_words() -> None:
    page = anchored(BODY)
    assert ids(page) == [
        "one",
        "one-tiny-llama-what-few-bits-bytes-cost",
        "table-one-all-schemes",
        "own",
        "table-one-all-schemes-2",
        "two",
        "two-its-own",
        "kept",
    ]
    assert '<h2><a href="#one">One</a></h2>' in page
    assert '<h3 id="own"><a href="#own">Its own</a></h3>' in page
    assert '<section id="one" class="wide">' in page


def test_nothing_but_names_and_links_is_added() -> None:
    page = re.sub(r"</?a[^>]*>", "", anchored(BODY))
    assert re.sub(r' id="[^"]*"', "", page) == re.sub(r' id="[^"]*"', "", BODY)


def test_the_navigation_gets_the_headings_of_each_section_as_text() -> None:
    assert headings(anchored(BODY)) == {
        "one": [
            Heading("one-tiny-llama-what-few-bits-bytes-cost", "tiny-llama: what few bits & bytes cost?"),
            Heading("own", "Its own"),
        ],
        "two": [Heading("two-its-own", "Its own")],
    }


@given(st.lists(st.text(), max_size=5))
def test_whatever_headings_say_their_names_are_plain_and_never_twice(texts: list[str]) -> None:
    page = anchored('<section id="a">' + "".join(f"<h3>{escape(text)}</h3>" for text in texts) + "</section>")
    names = ids(page)
    assert len(names) == len(set(names)) == 1 + len(texts)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
    assert re.findall(r'<h3 id="([^"]+)"', page) == re.findall(r'<a href="#([^"]+)"', page)
