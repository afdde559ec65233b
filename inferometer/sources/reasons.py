"""What lies behind an error of somebody else's library, cut to the length of a sentence's part."""

import textwrap

LONGEST = 200


def reason_of(error: BaseException) -> str:
    """The first line that the innermost cause says, or its kind where it says nothing; no full stop."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = textwrap.shorten(lines[0], LONGEST, placeholder=" …") if lines else ""
    kind = type(error).__name__
    return f"{kind} {said}".strip() if isinstance(error, KeyError) or not said else said.rstrip(".")
