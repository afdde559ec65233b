"""Text from outside: shown with all that it holds, and without effect on what stands beside it."""

import unicodedata
import xml.dom.minidom
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferometer.plotting import save
from inferometer.visible import PILE, drawable, visible

MARKS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
AWKWARD = st.text(st.sampled_from(f"ab 1א\n\u2029\x00\x1b\x9b\ufeff\u200b\u0301\ud800$<{MARKS}")) | st.text(
    st.characters(exclude_categories=())
)


def _left_open(line: str) -> tuple[int, int]:
    """By the rules of UAX #9, how many directions the line leaves open, and how many ends it has of none of its own.

    An isolate's end also ends what was opened within it; an embedding's end reaches no further than its isolate.
    """
    stack: list[str] = []
    stray = 0
    for character in line:
        match unicodedata.bidirectional(character):
            case "LRE" | "RLE" | "LRO" | "RLO":
                stack.append("PDF")
            case "LRI" | "RLI" | "FSI":
                stack.append("PDI")
            case "PDI" if "PDI" in stack:
                while stack.pop() != "PDI":
                    pass
            case "PDF" if stack and stack[-1] == "PDF":
                stack.pop()
            case "PDI" | "PDF":
                stray += 1
    return len(stack), stray


@given(AWKWARD)
def test_whatever_comes_in_can_be_written_and_turns_nothing_beside_it(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert not [
        character for character in shown if unicodedata.category(character) == "Cc" and character not in "\n\r\t"
    ]
    for line in shown.replace("\u2029", "\n").replace("\r", "\n").split("\n"):
        assert _left_open(line) == (0, 0)
        if any(unicodedata.bidirectional(character) in ("R", "AL", "RLO") for character in line):
            assert (line[0], line[-1]) == ("\u2068", "\u2069"), "isolated"


@given(AWKWARD)
def test_no_letter_is_lost_and_none_is_made_up(text: str) -> None:
    def letters(some: str) -> list[str]:
        return [character for character in some if unicodedata.category(character)[0] in "LS"]

    shown = iter(visible(text))
    assert all(letter in shown for letter in letters(text)), "the same, in the same order"


@given(st.text(st.characters(exclude_categories=("C", "M")).filter(lambda one: unicodedata.bidirectional(one) != "R")))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    if not any(unicodedata.bidirectional(character) in ("R", "AL") for character in text):
        assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", r"a\x00b"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("half \ud83d", r"half \ud83d"),
        ("👩\u200d🚀 and ﬁ", "👩\u200d🚀 and ﬁ"),
        ("\u202egnp.exe", "\u2068\u202egnp.exe\u202c\u2069"),
        ("end\u2069\u202c\u202ehere", "\u2068end\u202ehere\u202c\u2069"),
        ("\u202eone\ntwo", "\u2068\u202eone\u202c\u2069\ntwo"),
        ("שלום", "\u2068שלום\u2069"),
    ],
)
def test_what_a_reader_sees(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_piles_of_marks_stand_on_circles() -> None:
    shown = visible("e" + "\u0301" * 50 + "x")
    runs = [len(run) for run in "".join("m" if unicodedata.combining(one) else " " for one in shown).split()]
    assert max(runs) == PILE
    assert sum(runs) == 50


@pytest.mark.parametrize(
    "text", ["a\x00b", "\x1b[0m", "$x^2$", r"\$x_{y}$", "--><script>alert(1)</script>", "\ud800", "\u202egnp", "ﬁ<&\"'"]
)
def test_any_label_makes_a_figure_that_a_browser_can_read(text: str, tmp_path: Path) -> None:
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.set_xticks([0], [drawable(text)])
    save(figure, tmp_path / "figure.svg", 60)
    content = (tmp_path / "figure.svg").read_bytes()
    xml.dom.minidom.parseString(content)
    assert b"<script" not in content


def test_a_label_is_never_a_formula() -> None:
    figure, axes = plt.subplots(figsize=(2, 1))
    plain, formula = axes.set_title(drawable("$x^2$")), axes.set_xlabel("$x^2$")
    widths = [label.get_window_extent().width for label in (plain, formula)]
    plt.close(figure)
    assert widths[0] > 1.3 * widths[1], "five characters are drawn, not a letter with a small number"
