"""Pins stand in pyproject.toml; environment.yml and constraints.txt repeat them and must not drift."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]


def _pins(requirements: list[str]) -> dict[str, str]:
    """Exact pins by normalized name, without a package's own extras."""
    pairs = (re.sub(r"\[.*\]", "", requirement).split("==") for requirement in requirements if "==" in requirement)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def test_every_dependency_is_pinned_exactly_but_the_installer() -> None:
    requirements = [*PROJECT["dependencies"], *EXTRAS]
    assert [requirement for requirement in requirements if "==" not in requirement] == ["pip>=23.2"]


def test_conda_environment_holds_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert _pins(pip) == _pins(PROJECT["dependencies"])
    assert {"--constraint constraints.txt", "--editable ."} <= set(pip)
    assert f"python{PROJECT['requires-python']}" in environment["dependencies"]


def test_constraints_hold_the_same_pins_and_those_of_all_that_comes_along() -> None:
    constraints = _pins((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    direct = _pins([*PROJECT["dependencies"], *EXTRAS])
    assert direct.items() <= constraints.items()
    assert len(constraints) > len(direct)


def test_constraints_are_exact_pins_of_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)] == []
