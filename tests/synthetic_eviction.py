"""Made-up results of evicted sinks: tables as a study would leave them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from inferometer.attention.eviction_summary import summarize_eviction
from inferometer.attention.eviction_tables import EVICTED, EVICTION
from inferometer.tables import write_table

WINDOW, TEXTS = 32, 6
LOSSES = {"full": 0.0, "window": 1.5, "window + 4": 0.05}  # nats, once something is evicted
SINKS = {"full": None, "window": 0, "window + 4": 4}


def eviction(losses: dict[str, float] | None = None, reason: str | None = None) -> pd.DataFrame:
    """An EVICTION table; with a `reason` only the full cache is measured."""
    positions = np.arange(1, 4 * WINDOW)
    rows = []
    for text in range(TEXTS):
        generator = np.random.default_rng(text)
        difficulty = generator.normal(3 + 0.2 * text, 0.3, len(positions))
        noise = generator.normal(1, 0.1, len(positions))
        for arm, loss in (LOSSES if losses is None else losses).items():
            refused = reason is not None and arm != "full"
            nll = np.where(positions > WINDOW, difficulty + loss * noise, difficulty)
            columns = {"text": text, "position": positions, "nll": None if refused else nll}
            rows.append(pd.DataFrame(columns).assign(arm=arm, reason=reason if refused else None))
    table = pd.concat([part.astype({"nll": "float64", "reason": object}) for part in rows], ignore_index=True)
    return table.assign(
        sink_tokens=table["arm"].map(SINKS).astype("Int64"),
        window_tokens=WINDOW,
        corpus="prose",
        device="cpu",
        dtype="float32",
    )


def settings(corpus: str) -> dict[str, object]:
    """The section `attention.eviction` of the configuration."""
    return {"corpus": corpus, "window_tokens": WINDOW, "sink_tokens": [4], "max_windows": TEXTS}


def write(model: str, results: Path, draw: Callable[[Path, str], None]) -> None:
    """What evicting sinks leaves of a model."""
    folder = results / model / "attention"
    write_table(EVICTION, eviction(), folder / "eviction.parquet")
    write_table(EVICTED, summarize_eviction({model: eviction()}), results / "summary/eviction.parquet")
    draw(folder / "eviction.svg", "eviction")
