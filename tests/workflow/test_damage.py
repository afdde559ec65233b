"""Damaged inputs of jobs: each is named and refused, and what its sentence says to do mends it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.workflow.snakemake_runs import Outcome, Study

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study


def flip_a_bit(path: Path) -> None:
    """Change one bit of a value; a link becomes a changed copy, so that what it leads to is left."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".parquet":
        first = pq.read_metadata(path).row_group(0).column(0)
        place = first.dictionary_page_offset + first.total_compressed_size - 1
    else:
        place = len(content) // 3
    content[place] ^= 1
    path.unlink()
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def put_another_table_there(path: Path) -> None:
    shutil.copyfile(path.parents[1] / "summary" / "perplexity.parquet", path)


@dataclass(frozen=True)
class Damage:
    """What is done to a file of the results, which output of the job that reads it is asked for, and what it says."""

    file: str
    target: str
    sentence: str


DAMAGES = {
    "hidden states with a flipped bit": (
        flip_a_bit,
        Damage(
            "tiny/evaluation/fp/hidden.safetensors", "tiny/evaluation/w8a8/storage.parquet", "was damaged since it was"
        ),
    ),
    "images with a flipped bit": (
        flip_a_bit,
        Damage("sources/images/optdigits.safetensors", "fundamentals/digits.parquet", "was damaged since it was"),
    ),
    "a table with a flipped bit": (
        flip_a_bit,
        Damage("tiny/generation/samples.parquet", "tiny/generation/diversity.parquet", "cannot read the table"),
    ),
    "a table cut short": (
        cut_short,
        Damage(
            "tiny/evaluation/w4a4/sensitivity.parquet", "tiny/evaluation/w4a4/sensitivity.svg", "cannot read the table"
        ),
    ),
    "another table": (
        put_another_table_there,
        Damage("provenance/rules.parquet", "provenance/rules.svg", "is not a provenance/rules.parquet table of this"),
    ),
    "a manifest with a flipped bit": (
        flip_a_bit,
        Damage("shape/sources/model.json", "shape/profiling/memory.parquet", "is not a manifest of this version"),
    ),
}
WEIGHTS = "tiny/sources/checkpoint/model.safetensors"
CALIBRATION = "tiny/calibration/activations.parquet"


@dataclass(frozen=True)
class Refused:
    study: Study
    outcome: Outcome
    whole: dict[str, bytes]


@pytest.fixture(scope="module")
def refused(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Refused:
    """One call that went on after each of the damages."""
    own = study.copy(tmp_path_factory.mktemp("damaged") / "study")
    whole = {}
    for spoil, damage in DAMAGES.values():
        whole[damage.file] = (own.results / damage.file).read_bytes()
        (own.results / damage.target).unlink()
        spoil(own.results / damage.file)
    targets = [f"results/{damage.target}" for _, damage in DAMAGES.values()]
    return Refused(own, own.snakemake("--keep-going", targets=targets), whole)


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_input_is_named_and_refused(refused: Refused, what: str) -> None:
    _, damage = DAMAGES[what]
    assert refused.outcome.status == 1
    assert damage.sentence in refused.outcome.sentence
    assert f"results/{damage.file}" in refused.outcome.sentence
    assert "delete it and run again." in refused.outcome.sentence
    assert "Traceback" not in refused.outcome.output
    assert not (refused.study.results / damage.target).exists()
    assert not list(refused.study.folder.rglob("*.partial"))


def test_weights_that_changed_since_they_were_fetched_are_refused_and_fetched_again(own_copy: Study) -> None:
    whole = (own_copy.results / CALIBRATION).read_bytes()
    (own_copy.results / CALIBRATION).unlink()
    weights = own_copy.results / WEIGHTS
    flip_a_bit(weights)
    outcome = own_copy.snakemake(targets=[f"results/{CALIBRATION}"])
    assert outcome.status == 1
    assert f"results/{WEIGHTS} was changed since it was fetched; delete" in outcome.sentence
    assert "Traceback" not in outcome.output
    shutil.rmtree(weights.parent)
    again = own_copy.snakemake(targets=[f"results/{CALIBRATION}"])
    assert again.jobs == {"fetch_model tiny", "calibrate tiny"}
    assert (own_copy.results / CALIBRATION).read_bytes() == whole


def test_deleting_what_was_refused_makes_the_same_again(refused: Refused) -> None:
    names = ["sources/images/optdigits.safetensors", "tiny/evaluation/fp/hidden.safetensors"]
    for name in names:
        (refused.study.results / name).unlink()
    again = refused.study.snakemake(
        targets=[f"results/{damage.target}" for _, damage in DAMAGES.values() if damage.file in names]
    )
    assert again.status == 0, again.output
    for name in names:
        assert (refused.study.results / name).read_bytes() == refused.whole[name]
