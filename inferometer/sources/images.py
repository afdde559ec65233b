"""Image sets: small grey pictures of digits with their labels, out of scikit-learn, the hub, or local files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inferometer.errors import InferometerError
from inferometer.sources.hub import fetch_file
from inferometer.sources.reasons import reason_of

SPLITS = ("train", "test")
HELD_OUT = 4  # every fourth digit of scikit-learn's, which come without a division of their own, is for the test
CLASSES = 10

Images = dict[str, Tensor]  # `<split>_images` [items, rows, columns] and `<split>_labels` [items], for each split


def read_split(path: Path, what: str) -> tuple[Tensor, Tensor]:
    """Images [items, rows, columns] as bytes and labels [items] of a Parquet file with columns `image` and `label`.

    Raises InferometerError, naming the set by `what`, when the file can't be read so.
    """
    from inferometer.sources.rows import rows_of  # takes seconds to load, and only files need it

    try:
        with rows_of(path, "parquet") as data:
            images = np.stack([np.asarray(image.convert("L")) for image in data["image"]])
            labels = np.asarray(data["label"], dtype=np.int64)
    except Exception as error:  # datasets raises whatever its parsers raise
        raise InferometerError(
            f"{what}: {path.name} can't be read as Parquet with pictures of one size in `image` and digits in `label` "
            f"({reason_of(error)}); choose another file."
        ) from error
    if not np.isin(labels, range(CLASSES)).all():
        raise InferometerError(f"{what}: {path.name} has labels that are not digits from 0 to 9; choose another file.")
    return torch.from_numpy(images), torch.from_numpy(labels)


def _of_scikit_learn() -> Images:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    bunch = load_digits()
    images, labels = torch.from_numpy(bunch.images.astype(np.uint8)), torch.from_numpy(bunch.target.astype(np.int64))
    test = torch.arange(len(labels)) % HELD_OUT == HELD_OUT - 1
    return {
        f"{split}_{name}": values[chosen].contiguous()
        for split, chosen in (("train", ~test), ("test", test))
        for name, values in (("images", images), ("labels", labels))
    }


def fetch_images(name: str, entry: Mapping[str, Any]) -> Images:
    """An image set as configured, verified and read. Raises InferometerError naming the set."""
    what, key = f"image set {name!r}", f"image_sets.{name}"
    if entry["source"] == "scikit-learn":
        return _of_scikit_learn()
    found: Images = {}
    for split in SPLITS:
        if entry["source"] == "hub":
            path = fetch_file(entry["id"], entry["revision"], entry[split], dataset=True)
        else:
            path = Path(entry[split])
            if not path.is_file():
                raise InferometerError(f"{what}: {path} is not a file; check `{key}.{split}`.")
        found[f"{split}_images"], found[f"{split}_labels"] = read_split(path, what)
    sizes = [tuple(found[f"{split}_images"].shape[1:]) for split in SPLITS]
    if sizes[0] != sizes[1]:
        raise InferometerError(
            f"{what}: pictures of {sizes[0][0]}×{sizes[0][1]} pixels to train on and {sizes[1][0]}×{sizes[1][1]} to "
            f"test; check `{key}.train` and `{key}.test`."
        )
    return found
