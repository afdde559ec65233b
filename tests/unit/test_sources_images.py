"""Image sets: out of scikit-learn, local Parquet files and the hub, each fault in one sentence."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value  # type: ignore[import-untyped]

from inferometer.config import ConfigError, validate
from inferometer.errors import InferometerError
from inferometer.sources import images
from inferometer.sources.images import fetch_images
from tests.synthetic import study

ROOT = Path(__file__).parents[2]


def write_images(path: Path, labels: Sequence[int], size: int = 6) -> np.ndarray:
    """A file as the hub has MNIST, with pictures that are all different."""
    pixels = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), size, size), dtype=np.uint8)
    features = Features({"image": Image(), "label": Value("int64")})
    Dataset.from_dict({"image": list(pixels), "label": list(labels)}, features=features).to_parquet(path)
    return pixels


def local(folder: Path) -> dict[str, str]:
    return {"source": "local", **{split: str(folder / f"{split}.parquet") for split in ("train", "test")}}


def test_local_files_are_read_pixel_by_pixel(tmp_path: Path) -> None:
    pixels = {split: write_images(tmp_path / f"{split}.parquet", labels) for split, labels in LABELS.items()}
    found = fetch_images("mine", local(tmp_path))
    for split, labels in LABELS.items():
        assert torch.equal(found[f"{split}_images"], torch.from_numpy(pixels[split]))
        assert found[f"{split}_labels"].tolist() == labels


LABELS = {"train": [3, 1, 4, 1, 5], "test": [9, 2]}


def test_files_of_the_hub_are_asked_for_at_their_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(repository: str, revision: str, file: str, *, dataset: bool) -> Path:
        asked.append((repository, revision, file, dataset))
        return tmp_path / Path(file).name

    monkeypatch.setattr(images, "fetch_file", fetch)
    for split, labels in LABELS.items():
        write_images(tmp_path / f"{split}.parquet", labels)
    entry = {"source": "hub", "id": "some/digits", "revision": "0" * 40, "train": "a/train.parquet"}
    assert fetch_images("theirs", {**entry, "test": "a/test.parquet"})["test_labels"].tolist() == LABELS["test"]
    assert asked == [("some/digits", "0" * 40, f"a/{split}.parquet", True) for split in ("train", "test")]


def test_the_digits_of_scikit_learn_are_all_there_once() -> None:
    found = fetch_images("own", {"source": "scikit-learn"})
    assert [tuple(found[f"{split}_images"].shape) for split in ("train", "test")] == [(1348, 8, 8), (449, 8, 8)]
    assert all(found[f"{split}_images"].dtype == torch.uint8 for split in ("train", "test"))
    assert int(found["train_images"].max()) == 16


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InferometerError, match=r"image set 'mine': .*train.parquet is not a file; check `image_sets\.m"
    ):
        fetch_images("mine", local(tmp_path))


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"P5 6 6 255")
    with pytest.raises(
        InferometerError, match=r"image set 'mine': train.parquet can't be read as Parquet with pictures"
    ):
        fetch_images("mine", local(tmp_path))


def test_labels_that_are_no_digits_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train.parquet", [3, 10])
    with pytest.raises(InferometerError, match=r"train.parquet has labels that are not digits from 0 to 9"):
        fetch_images("mine", local(tmp_path))


def test_pictures_of_another_size_to_test_with_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train.parquet", [3, 1])
    write_images(tmp_path / "test.parquet", [4, 1], size=5)
    with pytest.raises(
        InferometerError, match=r"pictures of 6×6 pixels to train on and 5×5 to test; check `image_sets"
    ):
        fetch_images("mine", local(tmp_path))


def test_a_study_that_names_no_image_set_of_its_own_is_refused_before_anything_runs(tmp_path: Path) -> None:
    config = study()
    config["fundamentals"]["digits"]["image_set"] = "mnits"
    with pytest.raises(ConfigError, match=r"`fundamentals.digits.image_set` names 'mnits', which `image_sets` does"):
        validate(config, ROOT, tmp_path)


def test_local_files_that_are_missing_are_named_before_anything_runs(tmp_path: Path) -> None:
    config = study()
    config["image_sets"]["mine"] = {"source": "local", "train": "train.parquet", "test": "test.parquet"}
    (tmp_path / "train.parquet").touch()
    with pytest.raises(ConfigError, match=r"key `image_sets.mine.test` names test.parquet, which does not exist"):
        validate(config, ROOT, tmp_path)


@pytest.mark.parametrize(("key", "value"), [("bits", [9]), ("bits", [1]), ("seeds", []), ("epochs", 0)])
def test_settings_that_make_no_sense_are_refused_by_key(key: str, value: object, tmp_path: Path) -> None:
    config = study()
    config["fundamentals"]["digits"][key] = value
    with pytest.raises(ConfigError, match=rf"`fundamentals.digits.{key}"):
        validate(config, ROOT, tmp_path)


@pytest.mark.parametrize(("key", "value"), [("tokens", [0]), ("tokens", [10_000]), ("repetitions", 1)])
def test_timings_that_make_no_sense_are_refused_by_key(key: str, value: object, tmp_path: Path) -> None:
    config = study()
    config["fundamentals"]["decoder"][key] = value
    with pytest.raises(ConfigError, match=rf"`fundamentals.decoder.{key}"):
        validate(config, ROOT, tmp_path)
