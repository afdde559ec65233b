"""Rows of a local file, read by the datasets library: nothing is sent anywhere and nothing is left behind."""

import glob
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets import Dataset, config, disable_progress_bars, load_dataset  # type: ignore[import-untyped]

config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would tell a server of every local file that is read


@contextmanager
def rows_of(path: Path, builder: str) -> Iterator[Dataset]:
    """The rows of a file while the block runs; `builder` is `json` or `parquet`. Raises whatever its parsers raise."""
    disable_progress_bars()
    pattern = glob.escape(str(path.absolute()))
    with tempfile.TemporaryDirectory() as cache:
        data = load_dataset(builder, data_files=pattern, split="train", cache_dir=cache)
        assert isinstance(data, Dataset)
        yield data
