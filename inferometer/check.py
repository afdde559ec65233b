"""Says whether a configuration could be run, and runs nothing: not even what its file may ask of Snakemake.

    python -m inferometer.check study.yaml

Snakemake evaluates a file with the key `__use_yte__` as a program, and writes out all aliases, before a workflow sees
it; so a stranger's file goes through here first.
"""

import argparse
import sys
from pathlib import Path

from inferometer.config import read_study, validate
from inferometer.errors import InferometerError

ROOT = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> int:
    """Print one sentence; the exit status is 1 where the study can't be run."""
    parser = argparse.ArgumentParser(prog="python -m inferometer.check", description="Check a study's configuration.")
    parser.add_argument("configuration", type=Path, help="the study's overlay, as for --configfile")
    options = parser.parse_args(arguments)
    try:
        validate(read_study(ROOT, options.configuration), ROOT, Path.cwd())
    except InferometerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.configuration} is the configuration of a study that can be run.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
