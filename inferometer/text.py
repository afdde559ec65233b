"""From a corpus table to windows of token ids."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from inferometer.errors import InferometerError
from inferometer.manifest import Manifest, check_window
from inferometer.models import load_tokenizer, token_windows, tokenize
from inferometer.sources.tables import CORPUS
from inferometer.tables import read_table


def corpus_tokens(tokenizer: PreTrainedTokenizerBase, corpus: Path) -> Tensor:
    """All texts of a corpus file as token ids [tokens]."""
    return tokenize(tokenizer, read_table(CORPUS, corpus)["text"].tolist())


def windows_of(
    tokens: Tensor, manifest: Manifest, settings: Mapping[str, Any], chapter: str, least: int = 1
) -> list[Tensor]:
    """Windows [1, window_tokens] of a corpus [tokens], as the `settings` of a chapter ask for.

    Raises InferometerError when a window is longer than the model's context or the corpus shorter than `least` windows.
    """
    check_window(manifest, settings["window_tokens"], f"{chapter}.window_tokens")
    what = f"corpus {settings['corpus']!r} (`{chapter}.corpus`)"
    windows = list(token_windows(tokens, settings["window_tokens"], settings["max_windows"], what))
    if len(windows) < least:
        raise InferometerError(
            f"{what} fills {len(windows)} window of {settings['window_tokens']} tokens, but an interval needs {least}; "
            "use a longer text or a shorter window."
        )
    return windows


def corpus_windows(
    manifest: Manifest, checkpoint: Path, corpus: Path, settings: Mapping[str, Any], chapter: str, least: int = 1
) -> list[Tensor]:
    """`windows_of` a corpus file, before any weights are read."""
    return windows_of(corpus_tokens(load_tokenizer(manifest, checkpoint), corpus), manifest, settings, chapter, least)
