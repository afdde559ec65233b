"""Snakemake's own linter finds nothing but what was weighed and left."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT = {
    # One environment serves all rules: jobs share a model's tables, and its pins stand in one place.
    "Specify a conda environment or container for each rule.:",
}


@pytest.mark.timeout(120)
def test_linter_has_no_further_complaints() -> None:
    command = [sys.executable, "-m", "snakemake", "--lint", "--snakefile", str(ROOT / "Snakefile")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    output = result.stdout + result.stderr
    assert "Lints for rule calibrate" in output, output
    complaints = {line.strip().removeprefix("* ") for line in output.splitlines() if line.strip().startswith("* ")}
    assert complaints == LEFT
