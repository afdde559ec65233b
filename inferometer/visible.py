"""Text from outside as it can be shown: with a number for each control character, and no effect beyond its own end.

Prompts, tokens and what models write may hold any character. Left as they are: letters of all scripts, emoji, white
space, and marks for the direction of writing, as far as these end where the text ends (UAX #9, rules X1 to X8).
"""

import re
import unicodedata
from typing import Final

PILE: Final = 4  # combining marks on one letter; what is written needs no more, and more reach into other lines
OPENS: Final = {"\u202a": "\u202c", "\u202b": "\u202c", "\u202d": "\u202c", "\u202e": "\u202c"} | dict.fromkeys(
    "\u2066\u2067\u2068", "\u2069"
)  # embeddings and overrides, isolates, and what ends them
DIRECTIONS: Final = {*OPENS, *OPENS.values()}
FIRST_STRONG_ISOLATE, POP_ISOLATE, DOTTED_CIRCLE = "\u2068", "\u2069", "\u25cc"
TURNING: Final = {"R", "AL", "RLE", "RLO", "LRE", "LRO", "RLI", "LRI", "FSI", "PDI", "PDF"}  # bidirectional classes
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]|[\ud800-\udfff]")
_LINE_END: Final = re.compile(r"([\n\r\u2029])")  # where directions end by themselves
_PLAIN: Final = re.compile(r"[\t\n\r -~\u00a0-\u02ff]*")


def _numbered(match: re.Match[str]) -> str:
    """The number of a character that has no shape, as programs write it."""
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _unpiled(text: str) -> str:
    """The text with a circle under each pile of combining marks that would reach into other lines."""
    shown, pile = [], 0
    for character in text:
        pile = pile + 1 if unicodedata.combining(character) else 0
        if pile > PILE:
            shown.append(DOTTED_CIRCLE)
            pile = 1
        shown.append(character)
    return "".join(shown)


def _closed(line: str) -> str:
    """The line with each direction that it opens closed, and without ends of what it never opened."""
    shown: list[str] = []
    ends: list[str] = []
    for character in line:
        if character in OPENS:
            ends.append(OPENS[character])
        elif character == POP_ISOLATE:
            if POP_ISOLATE not in ends:
                continue
            while (end := ends.pop()) != POP_ISOLATE:
                shown.append(end)
        elif character == "\u202c":
            if not ends or ends[-1] != character:
                continue
            ends.pop()
        shown.append(character)
    return "".join(shown + ends[::-1])


def _turns(line: str) -> bool:
    """Whether the line has anything that is written from right to left, or that asks for a direction."""
    return any(unicodedata.bidirectional(character) in TURNING for character in line)


def visible(text: str) -> str:
    """The text with numbers for control characters and lone surrogates, small piles of marks, and closed directions.

    Lines that are written from right to left are isolated from what stands beside them.
    """
    if _PLAIN.fullmatch(text):
        return text
    lines = _LINE_END.split(_unpiled(_CONTROL.sub(_numbered, text)))
    return "".join(f"{FIRST_STRONG_ISOLATE}{_closed(line)}{POP_ISOLATE}" if _turns(line) else line for line in lines)


def drawable(text: str) -> str:
    """The text as a label of a figure: on one line, and neither a formula nor with characters that an SVG can't hold.

    Figures know no directions of writing, so that marks for these are left out.
    """
    line = _unpiled(_CONTROL.sub(_numbered, text.replace("\n", "⏎")))
    return "".join(character for character in line if character not in DIRECTIONS).replace("$", r"\$")
