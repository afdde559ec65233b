"""Snakemake's own linter finds nothing but what was weighed and left, and every overlay can be planned."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT = {
    # One environment serves all rules: jobs share a model's tables, and its pins stand in one place.
    "Specify a conda environment or container for each rule.:",
}


def complaints(output: str) -> set[str]:
    """What the linter says about rules, each kind once."""
    assert "Lints for rule calibrate" in output, output
    return {line.strip().removeprefix("* ") for line in output.splitlines() if line.strip().startswith("* ")}


@pytest.mark.timeout(600)
def test_linter_has_no_further_complaints() -> None:
    command = [sys.executable, "-m", "snakemake", "--lint", "--snakefile", str(ROOT / "Snakefile")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert complaints(result.stdout + result.stderr) == LEFT


@pytest.mark.timeout(600)
@pytest.mark.parametrize("overlay", ["full", "llama", "smollm"])
def test_every_overlay_makes_a_plan(overlay: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(tmp_path), "--configfile", str(ROOT / "config" / f"{overlay}.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "rule report:" in output
