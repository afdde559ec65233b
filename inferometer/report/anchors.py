"""Names for all that a reader may want to point at: every heading, figure and table gets an id that stays.

Templates need not care: the names are made from what the page says, and the navigation lists the headings.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

from markupsafe import Markup

SECTION = re.compile(r'(<section id="([^"]+)"[^>]*>)')
HEADING = re.compile(r'<h([23])(?: id="([^"]+)")?([^>]*)>(.*?)</h\1>', re.DOTALL)
REGION = re.compile(r'<div class="scroll"(?! id)([^>]*? aria-label="([^"]*)")')
NAMED = re.compile(r'\bid="([^"]+)"')
LONGEST = 80


@dataclass(frozen=True)
class Heading:
    """A heading inside a section, for the navigation."""

    anchor: str
    text: str


def _slug(text: str) -> str:
    """The words of an HTML text, in small letters and joined by hyphens."""
    plain = unescape(re.sub(r"<[^>]+>", "", text)).lower()
    return re.sub(r"[^\w.]+", "-", plain)[:LONGEST].strip("-.")


def anchored(body: str) -> Markup:
    """The page's sections with an id for each heading and table, and each heading a link to itself.

    Ids are made of the section's id and the heading's or the table's own words; a second one of the same words gets a
    number. What has an id keeps it.
    """
    taken = set(NAMED.findall(body))

    def free(name: str) -> str:
        number, own = 1, name
        while own in taken:
            number += 1
            own = f"{name}-{number}"
        taken.add(own)
        return own

    def within(section: str, content: str) -> str:
        def heading(found: re.Match[str]) -> str:
            level, own, others, text = found.groups()
            if level == "2":
                return f'<h2{others}><a href="#{section}">{text}</a></h2>'
            anchor = own or free(f"{section}-{_slug(text)}")
            return f'<h3 id="{anchor}"{others}><a href="#{anchor}">{text}</a></h3>'

        def region(found: re.Match[str]) -> str:
            return f'<div class="scroll" id="{free(f"table-{section}-{_slug(found[2])}")}"{found[1]}'

        return REGION.sub(region, HEADING.sub(heading, content))

    before, *parts = SECTION.split(body)
    named = [tag + within(section, content) for tag, section, content in _triples(parts)]
    return Markup("".join([before, *named]))


def headings(body: str) -> dict[str, list[Heading]]:
    """The headings of the third level in each section of an anchored page, in the page's order.

    Those of the shape that all chapters share are left out: they tell the reader nothing of a section.
    """
    return {
        section: [
            Heading(own, unescape(re.sub(r"<[^>]+>", "", text)))
            for level, own, others, text in HEADING.findall(content)
            if level == "3" and 'class="shape"' not in others
        ]
        for _, section, content in _triples(SECTION.split(body)[1:])
    }


def _triples(parts: list[str]) -> Iterator[tuple[str, str, str]]:
    """A section's opening tag, its id and all up to the next section, for what `SECTION` splits a page into."""
    return zip(parts[::3], parts[1::3], parts[2::3], strict=True)
