"""Draws the page from a folder of results as it is, without Snakemake:

    python -m inferometer.report RESULTS [--config study.yaml] [--output page.html]

What the folder lacks is said on the page, in the place of what it would show.
"""

import argparse
import sys
from pathlib import Path

from inferometer.config import check, read_study
from inferometer.errors import InferometerError
from inferometer.report.contents import contents
from inferometer.report.page import render

ROOT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Draw the page; the exit status is 1 where not even that can be done."""
    parser = argparse.ArgumentParser(prog="python -m inferometer.report", description="Draw the page from results.")
    parser.add_argument("results", type=Path, help="folder of results, as a study leaves it")
    parser.add_argument("--config", type=Path, help="the study's overlay (default: the default study)")
    parser.add_argument("-o", "--output", type=Path, help="where the page goes (default: report.html in RESULTS)")
    options = parser.parse_args(arguments)
    output = options.output or options.results / "report.html"
    try:
        if not options.results.is_dir():
            raise InferometerError(f"{options.results} is no folder of results.")
        config = read_study(ROOT, options.config)
        check(config, ROOT)
        context = contents(config, options.results, ROOT / "report/reported.yaml")
        render(ROOT / "report", output, context, complete=False)
    except InferometerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        *(f"{name}: {absence.sentence}" for name, absence in context["absences"].items()), f"wrote {output}", sep="\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
