"""One finished study that all whole-run tests share, and copies of it for tests that change something."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workflow.snakemake_runs import Outcome, Place, Study, new_study, tree


@dataclass(frozen=True)
class Finished:
    """A study that ran from nothing to its report, and how the run went."""

    study: Study
    outcome: Outcome
    project_before: dict[str, tuple[int, int]]
    project_after: dict[str, tuple[int, int]]
    outside: list[Path]
    connections: str


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The shared run. Tests read its results and do dry runs in it; what else they do, they do in a copy."""
    folder = tmp_path_factory.mktemp("workflow")
    place = Place.make(folder)
    study = new_study(folder / "study", place)
    before = tree(place.project)
    outcome = study.snakemake()
    return Finished(
        study=study,
        outcome=outcome,
        project_before=before,
        project_after=tree(place.project),
        outside=[path.relative_to(place.outside) for path in place.outside.rglob("*") if path.is_file()],
        connections=place.connections.read_text(encoding="utf-8") if place.connections.exists() else "",
    )


@pytest.fixture(scope="session")
def study(finished: Finished) -> Study:
    """The finished study, for tests that only look or run dry."""
    assert finished.outcome.status == 0, finished.outcome.output
    return finished.study


@pytest.fixture
def own_copy(study: Study, tmp_path: Path) -> Study:
    """A finished study that the test may change."""
    return study.copy(tmp_path / "study")
