"""One row for each model and scheme: every metric with its interval, exact bytes, and what computed it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inferometer.evaluation.choices_summary import correct_items
from inferometer.intervals import Interval, bootstrap_mean
from inferometer.tables import records

MISSING = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Measured:
    """The tables of one model and scheme: FIDELITY, CHOICES, LAYERS and STORAGE."""

    fidelity: pd.DataFrame
    choices: pd.DataFrame
    layers: pd.DataFrame
    storage: pd.DataFrame


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _by_window(fidelity: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Mean of a column in every window: tokens of one window are not independent, windows are resampled whole."""
    return fidelity.groupby("window")[column].mean().to_numpy(dtype=np.float64)


def _middle(values: pd.Series) -> float:
    return float(values.median()) if values.notna().any() else float("nan")


def summarize_schemes(
    cells: Mapping[tuple[str, str], Measured], perplexity: pd.DataFrame, reference: str
) -> pd.DataFrame:
    """The SCHEMES table. `perplexity` is the PERPLEXITY table of the same cells, which lacks skipped schemes.

    Accuracy is `acc_norm` over the items of all question sets together, and its change is paired item by item with the
    `reference` scheme. Skipped schemes have a row with the reason and no metric.
    """
    known = {(row["model"], row["scheme"]): row for row in records(perplexity)}
    rows = []
    for (model, scheme), tables in cells.items():
        [storage] = records(tables.storage)
        row = {"model": model, "scheme": scheme, **storage}
        own = known.get((model, scheme), {})
        row |= {name: own.get(name) for name in ("device", "dtype")}
        for name in ("perplexity", "ratio"):
            row |= {f"{name}{end}": own.get(f"{name}{end}") for end in ("", "_low", "_high")}
        right = correct_items(tables.choices)["acc_norm"]
        change = right - correct_items(cells[model, reference].choices)["acc_norm"] if len(right) else right
        for name, sample in (
            ("kl_divergence", _by_window(tables.fidelity, "kl_divergence")),
            ("top_agreement", _by_window(tables.fidelity, "same_top_token")),
            ("accuracy", right),
            ("accuracy_change", change),
        ):
            row |= _columns(name, bootstrap_mean(sample) if len(sample) else MISSING)
        bits = 8 * row["rounded_bytes"] / row["rounded_weights"] if row["rounded_weights"] else None
        row |= {f"{name}_sqnr_db": _middle(tables.layers[f"{name}_sqnr_db"]) for name in ("weight", "output")}
        rows.append(row | {"bits_per_weight": bits})
    return pd.DataFrame(rows)


def pareto(schemes: pd.DataFrame) -> list[str]:
    """The schemes of one model that no other one beats in both bytes and perplexity, the smallest first."""
    best: list[str] = []
    lowest = np.inf
    for row in schemes.sort_values(["weights_bytes", "ratio"]).itertuples():
        if float(row.ratio) < lowest:  # type: ignore[arg-type]  # pandas types any cell as anything
            best.append(str(row.scheme))
            lowest = float(row.ratio)  # type: ignore[arg-type]  # as above
    return best
