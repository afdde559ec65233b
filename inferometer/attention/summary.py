"""Sinks by layer with intervals, their phases, and what rounding does to them, from the raw tables alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inferometer.attention.names import ALL_TEXTS, DUMMIES, FLOAT, OWN
from inferometer.attention.phases import phases_of
from inferometer.intervals import bootstrap_mean

KIND = ["input", "length", "first_token"]
MEANS = ["first_1", "first_2", "recent", "entropy", "distance_tokens"]


def _by_text(heads: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means over heads, where a layer has any."""
    measured = heads[heads["head"].notna()]
    means: pd.DataFrame = measured.groupby(keys)[[*MEANS, *(["uniform_2"] if "uniform_2" in heads else [])]].mean()
    return means.reset_index()


def summarize_sinks(heads: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The SINKS table of the HEADS tables, by model."""
    rows: list[dict[str, Any]] = []
    for model, table in heads.items():
        for names, own in _by_text(table, [*KIND, "tokens", "layer", "text"]).groupby([*KIND, "tokens", "layer"]):
            found = bootstrap_mean(own["first_2"].to_numpy(dtype=np.float64))
            labels = dict(zip([*KIND, "tokens", "layer"], names, strict=True))
            rows.append(
                {
                    "model": model,
                    **labels,
                    "texts": len(own),
                    "share": found.estimate,
                    "share_low": found.low,
                    "share_high": found.high,
                    "uniform": own["uniform_2"].mean(),
                    **own[["first_1", "recent", "entropy", "distance_tokens"]].mean(),
                }
            )
    return pd.DataFrame(rows)


def _curves(rows: pd.DataFrame) -> NDArray[np.float64]:
    """The share on the first two tokens [texts, layers] of texts of one length, as they are."""
    curves = rows.pivot_table(index=["input", "text"], columns="layer", values="first_2")
    return np.asarray(curves, dtype=np.float64)


def summarize_phases(heads: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The PHASES table of the HEADS tables, by model."""
    rows: list[dict[str, Any]] = []
    for model, table in heads.items():
        texts = _by_text(table[table["first_token"] == OWN], [*KIND, "layer", "text"])
        for length, of_length in texts.groupby("length"):
            groups = {str(name): own for name, own in of_length.groupby("input")}
            groups[ALL_TEXTS] = of_length[~of_length["input"].isin(DUMMIES)]
            for name, own in groups.items():
                found = phases_of(_curves(own))
                for number, stretch in enumerate(found.stretches):
                    rows.append(
                        {
                            "model": model,
                            "input": name,
                            "length": length,
                            "stretch": number,
                            "phase": stretch.phase,
                            "first_layer": stretch.first,
                            "first_layer_low": stretch.first_low,
                            "first_layer_high": stretch.first_high,
                            "last_layer": stretch.last,
                            "share": stretch.level,
                            "agreeing": found.agreeing,
                        }
                    )
    return pd.DataFrame(rows)


def _moved(name: str, own: NDArray[np.float64], base: NDArray[np.float64]) -> dict[str, float]:
    change = bootstrap_mean(own - base)
    return {
        name: float(own.mean()),
        f"{name}_change": change.estimate,
        f"{name}_change_low": change.low,
        f"{name}_change_high": change.high,
    }


def _compared(own: pd.DataFrame, base: pd.DataFrame) -> dict[str, Any]:
    """The columns of ATTENTION_SCHEMES for rows of ROUNDED and those of the same texts and heads in float."""
    place = ["layer", "head"]
    texts, base_texts = (table.groupby("text")[["first_2", "entropy"]].mean() for table in (own, base))
    by_head, base_by_head = (table.groupby(place)["entropy"].mean() for table in (own, base))
    return {
        "texts": len(texts),
        **_moved("share", texts["first_2"].to_numpy(), base_texts["first_2"].to_numpy()),
        **_moved("entropy", texts["entropy"].to_numpy(), base_texts["entropy"].to_numpy()),
        "entropy_moved": float((by_head - base_by_head).abs().mean()),
    }


def summarize_rounded(rounded: Mapping[str, pd.DataFrame], reference: str) -> pd.DataFrame:
    """The ATTENTION_SCHEMES table of the ROUNDED tables, by model; arms that could not run are left out."""
    rows: list[dict[str, Any]] = []
    for model, table in rounded.items():
        table = table[table["head"].notna()]
        base = table[(table["scheme"] == reference) & (table["cache"] == FLOAT)]
        for (scheme, cache), own in table.groupby(["scheme", "cache"]):
            labels = {"model": model, "scheme": scheme, "cache": cache}
            rows.append({**labels, "layer": None, **_compared(own, base)})
            for layer, of_layer in own.groupby("layer"):
                rows.append({**labels, "layer": layer, **_compared(of_layer, base[base["layer"] == layer])})
    return pd.DataFrame(rows).astype({"layer": "Int64"})
