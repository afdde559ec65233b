"""Files of tensors: what comes back is what was written, and every kind of damage is refused by name."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from inferometer.errors import InferometerError
from inferometer.tensors import read_tensors, write_tensors

NAMES = ("hidden", "packs")


def _tensors() -> dict[str, Tensor]:
    return {"hidden": torch.arange(24, dtype=torch.bfloat16).view(2, 3, 4), "packs": torch.tensor(True)}


def _complaint(path: Path) -> str:
    with pytest.raises(InferometerError) as caught:
        read_tensors(path, *NAMES)
    complaint = str(caught.value)
    assert str(path) in complaint
    assert complaint.endswith("; delete it and run again.")
    assert "\n" not in complaint
    return complaint


def test_tensors_come_back_as_they_were_and_equal_ones_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_tensors(_tensors(), tmp_path / name)
    found = read_tensors(tmp_path / "one", *NAMES)
    assert all(torch.equal(found[name], tensor) for name, tensor in _tensors().items())
    assert found["hidden"].dtype == torch.bfloat16
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tensors") / "whole.safetensors"
    write_tensors(_tensors(), path)
    return path


def test_every_single_flipped_bit_is_refused_or_changes_nothing(whole: Path, tmp_path: Path) -> None:
    content, damaged = whole.read_bytes(), tmp_path / "damaged.safetensors"
    harmless = 0
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        damaged.write_bytes(flipped)
        try:
            found = read_tensors(damaged, *NAMES)
        except InferometerError:
            _complaint(damaged)
        else:
            harmless += 1
            assert all(torch.equal(found[name], tensor) for name, tensor in _tensors().items())
    assert harmless < 80, "blanks that pad the header may become other blanks"


def test_a_file_cut_short_anywhere_is_refused(whole: Path, tmp_path: Path) -> None:
    content, cut = whole.read_bytes(), tmp_path / "cut.safetensors"
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        _complaint(cut)


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "any.safetensors"
    path.write_bytes(content)
    _complaint(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    _complaint(tmp_path / "absent.safetensors")


def test_tensors_of_other_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_tensors({"hidden": torch.ones(3)}, path)
    assert "holds something else than hidden, packs" in _complaint(path)


def test_a_file_without_a_digest_or_with_that_of_others_is_refused(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_file(load_file(whole), path)
    assert "holds something else" in _complaint(path)
    wrong = {**_tensors(), "packs": torch.tensor(False)}
    save_file(wrong, path, metadata={"sha256": "0" * 64})
    assert "was damaged since it was written" in _complaint(path)
