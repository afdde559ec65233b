"""Features by stretches of 64 tokens, and rarities of inserted words with intervals, from the raw tables alone."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inferometer.generation.tables import ALL_WORDS
from inferometer.intervals import Interval, bootstrap_crossed

STRETCH_TOKENS = 64  # the study logged its features so often


def summarize_features(features: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The LOGGED table of the FEATURES tables, by model."""
    rows: list[dict[str, object]] = []
    for model, table in features.items():
        for prompt, own in table[table["generated"]].groupby("prompt"):
            written = own.sort_values("position", ignore_index=True)
            for start in range(0, len(written), STRETCH_TOKENS):
                stretch = written[start : start + STRETCH_TOKENS]
                rows.append(
                    {
                        "model": model,
                        "prompt": prompt,
                        "tokens": start + len(stretch),
                        "stretch_tokens": len(stretch),
                        "entropy_low": stretch["entropy"].quantile(0.25),
                        "entropy_high": stretch["entropy"].quantile(0.75),
                        "repeated": stretch["repeats"].mean(),
                        **stretch[
                            ["entropy", "rarity", "saliency_norm", "gradient_input", "received_attention"]
                        ].mean(),
                    }
                )
    return pd.DataFrame(rows)


def _sample(table: pd.DataFrame, values: pd.Series) -> NDArray[np.float64]:
    """Values of an INSERTIONS table as [words, contexts]."""
    ordered = values.loc[table.sort_values(["word", "context"]).index]
    return ordered.to_numpy(dtype=np.float64).reshape(table["word"].nunique(), -1)


def _named(name: str, found: Interval) -> dict[str, float]:
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _groups(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Kind, word and rows of all words of a kind together, and of each alone."""
    for kind, of_kind in table.groupby("kind"):
        yield str(kind), ALL_WORDS, of_kind
        for word, own in of_kind.groupby("word"):
            yield str(kind), str(word), own


def summarize_insertions(insertions: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The INSERTED table of the INSERTIONS tables, by model.

    Differences are those of one text with the word and without, so that what is hard about a text is on both sides.
    """
    rows: list[dict[str, Any]] = []
    for model, table in insertions.items():
        for kind, word, own in _groups(table):
            quantities = {
                "rarity": own["rarity"],
                "first_rarity": own["first_rarity"],
                "word_rarity": own["word_rarity"],
                "increase": own["rarity"] - own["stood_rarity"],
                "after_increase": own["after_rarity"] - own["stood_after_rarity"],
            }
            row: dict[str, Any] = {"model": model, "kind": kind, "word": word, "words": own["word"].nunique()}
            row |= {"contexts": own["context"].nunique(), "word_tokens": own["word_tokens"].mean()}
            row |= {"stood_rarity": own["stood_rarity"].mean()}
            for name, values in quantities.items():
                row |= _named(name, bootstrap_crossed(_sample(own, values)))
            rows.append(row)
    return pd.DataFrame(rows)
