"""Windows of a corpus: refused before any weights are read when there are too few."""

from pathlib import Path

import pandas as pd
import pytest

from inferometer.errors import InferometerError
from inferometer.sources.checkpoints import fetch_checkpoint
from inferometer.sources.tables import CORPUS
from inferometer.tables import write_table
from inferometer.text import corpus_windows
from tests.tiny import WORDS, tiny_checkpoint


def test_a_text_that_fills_one_window_only_has_no_interval(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "tiny")
    manifest = fetch_checkpoint("tiny", {"source": "local", "path": str(source)}, tmp_path / "checkpoint")
    corpus = tmp_path / "corpus.parquet"
    write_table(CORPUS, pd.DataFrame({"text_index": [0], "text": [" ".join(WORDS[:20])]}), corpus)
    settings = {"corpus": "words", "window_tokens": 16, "max_windows": "all"}
    [window] = corpus_windows(manifest, tmp_path / "checkpoint", corpus, settings, "calibration")
    assert window.shape == (1, 16)
    with pytest.raises(
        InferometerError, match=r"'words' \(`evaluation.corpus`\) fills 1 window .* an interval needs 2"
    ):
        corpus_windows(manifest, tmp_path / "checkpoint", corpus, settings, "evaluation", 2)
