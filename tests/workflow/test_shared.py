"""Studies that share what is prepared: two at once make it once, and what is damaged later is found and mended."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.tiny import tiny_model
from tests.unit.test_sources_checkpoints import write_gguf
from tests.unit.test_sources_shared import flip
from tests.workflow.snakemake_runs import Outcome, Place, Study, new_study, setting

pytestmark = pytest.mark.timeout(1800)

MODEL = "results/tiny/sources/model.json"
SOURCES = (
    MODEL,
    "results/sources/corpora/calibration-text.parquet",
    "results/sources/corpora/evaluation-text.parquet",
    "results/sources/questions/quiz.parquet",
    "results/sources/images/optdigits.safetensors",
)
PREPARED = "prepared in the shared folder"
TAKEN = "taken from the shared folder"


def fetch(study: Study) -> Outcome:
    """Run snakemake for all that is fetched."""
    outcome = study.snakemake(targets=SOURCES)
    assert outcome.status == 0, outcome.output
    return outcome


def said(study: Study, sentence: str) -> int:
    """How many jobs that fetch something wrote a sentence into their logs."""
    logs = (study.results / "logs").glob("fetch_*/*.log")
    return sum(sentence in path.read_text(encoding="utf-8") for path in logs)


def fetched(study: Study) -> dict[str, bytes]:
    """What a study fetched, with the files that links lead to."""
    files = [study.folder / path for path in SOURCES]
    files += (study.results / "tiny" / "sources" / "checkpoint").glob("[!.]*")
    return {str(path.relative_to(study.folder)): path.read_bytes() for path in files}


def test_two_studies_at_once_prepare_once_and_a_flipped_bit_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("INFEROMETER_SHARED", str(shared))
    place = Place.make(tmp_path / "place")
    entry = {"source": "local", "path": "models/tiny.gguf"}
    first = new_study(tmp_path / "first", place).changed(setting(entry, "models", "tiny"))
    write_gguf(first.folder / "models" / "tiny.gguf", tiny_model())
    second, third = first.copy(tmp_path / "second"), first.copy(tmp_path / "third")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fetch, (first, second)))
    assert said(first, PREPARED) + said(second, PREPARED) == len(SOURCES)
    assert said(first, TAKEN) == said(second, TAKEN) == len(SOURCES)
    assert fetched(first) == fetched(second)
    assert "results/tiny/sources/checkpoint/model.safetensors" in fetched(first)

    [weights] = shared.glob("*/checkpoint/model.safetensors")
    whole = weights.read_bytes()
    flip(weights)
    fetch(third)
    assert said(third, "checkpoint/model.safetensors is not what was written") == 1
    assert said(third, PREPARED) == 1
    assert weights.read_bytes() == whole
    assert fetched(third) == fetched(first) == fetched(second)

    monkeypatch.delenv("INFEROMETER_SHARED")
    assert third.would_run(*SOURCES) == set()  # what is shared is no reason to run again
    shutil.rmtree(third.results)
    fetch(third)
    assert fetched(third) == fetched(first)  # and changes no byte
