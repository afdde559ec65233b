"""From a corpus table to windows of token ids."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from inferometer.manifest import Manifest, check_window
from inferometer.models import load_tokenizer, token_windows, tokenize
from inferometer.sources.tables import CORPUS
from inferometer.tables import read_table


def corpus_windows(
    manifest: Manifest, checkpoint: Path, corpus: Path, settings: Mapping[str, Any], chapter: str
) -> list[Tensor]:
    """Windows [1, window_tokens] of a corpus file, as the `settings` of a chapter ask for.

    Raises InferometerError, before any weights are read, when a window is longer than the model's context or the
    corpus shorter than a window.
    """
    check_window(manifest, settings["window_tokens"], f"{chapter}.window_tokens")
    texts = read_table(CORPUS, corpus)["text"].tolist()
    tokens = tokenize(load_tokenizer(manifest, checkpoint), texts)
    what = f"corpus {settings['corpus']!r} (`{chapter}.corpus`)"
    return list(token_windows(tokens, settings["window_tokens"], settings["max_windows"], what))
