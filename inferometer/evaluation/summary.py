"""Perplexities with their intervals, from the raw windows alone."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from inferometer.intervals import bootstrap_mean


def summarize_perplexity(windows: Mapping[tuple[str, str], pd.DataFrame], reference: str) -> pd.DataFrame:
    """A row of the PERPLEXITY table for each (model, scheme) of `windows`, which holds WINDOWS tables.

    Every scheme is paired with the `reference` scheme of the same model, window by window: text that is hard is
    hard for both, so the interval of the ratio is far narrower than those of the perplexities.
    Raises ValueError when the two were not scored on the same windows.
    """
    rows = []
    for (model, scheme), table in windows.items():
        table = table.sort_values("window", ignore_index=True)
        base = windows[model, reference].sort_values("window", ignore_index=True)
        identity = ["corpus", "protocol", "window", "tokens"]
        if not table[identity].equals(base[identity]):
            raise ValueError(f"{scheme} and {reference} of {model} were not scored on the same windows")
        nll = table["nll"].to_numpy(dtype=np.float64)
        own = bootstrap_mean(nll)
        paired = bootstrap_mean(nll - base["nll"].to_numpy(dtype=np.float64))
        first = table.iloc[0]
        rows.append(
            {
                "model": model,
                "scheme": scheme,
                **{name: first[name] for name in ("corpus", "protocol", "device", "dtype")},
                "window_tokens": int(first["tokens"]) + 1,
                "windows": len(table),
                "tokens": int(table["tokens"].sum()),
                "perplexity": np.exp(own.estimate),
                "perplexity_low": np.exp(own.low),
                "perplexity_high": np.exp(own.high),
                "ratio": np.exp(paired.estimate),
                "ratio_low": np.exp(paired.low),
                "ratio_high": np.exp(paired.high),
            }
        )
    return pd.DataFrame(rows)
