"""The command line: one page about what two runs differ by.

python -m inferometer.compare results-a results-b -o comparison.html
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from inferometer.compare.comparison import compare
from inferometer.errors import InferometerError
from inferometer.report.page import render

ROOT = Path(__file__).parents[2]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m inferometer.compare",
        description="What changed beyond its interval between two folders of results, as one HTML page.",
    )
    parser.add_argument("before", type=Path, metavar="A", help="folder of results, for example results")
    parser.add_argument("after", type=Path, metavar="B", help="folder of results to hold against it")
    parser.add_argument("-o", "--output", type=Path, default=Path("comparison.html"), help="(default comparison.html)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and print the outcome; the exit status is 1 where a folder or a table can't be read."""
    given = _arguments(arguments)
    try:
        found = compare(given.before, given.after, ROOT)
        render(ROOT / "report", given.output, {"comparison": found}, "compare.html.j2")
    except InferometerError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join([*found.said, f"Wrote {given.output}."]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
