"""Perplexities with their intervals, from the raw windows alone."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inferometer.errors import InferometerError
from inferometer.evaluation.tables import GAINS
from inferometer.intervals import Interval, bootstrap, bootstrap_mean

Windows = Mapping[tuple[str, str], pd.DataFrame]


def _nll(windows: Windows, model: str, scheme: str, reference: str) -> NDArray[np.float64]:
    """The nll of a scheme's windows in order; refuses to pair them with other windows than the reference's."""
    identity = ["corpus", "protocol", "window", "tokens"]
    table, base = (windows[model, name].sort_values("window", ignore_index=True) for name in (scheme, reference))
    if not table[identity].equals(base[identity]):
        raise InferometerError(
            f"{scheme} and {reference} of {model} were not scored on the same windows, so one of their tables "
            "perplexity.parquet is of another study or model; delete it and run again."
        )
    return table["nll"].to_numpy(dtype=np.float64)


def summarize_perplexity(windows: Windows, reference: str) -> pd.DataFrame:
    """A row of the PERPLEXITY table for each (model, scheme) of `windows`, which holds WINDOWS tables.

    Every scheme is paired with the `reference` scheme of the same model, window by window: text that is hard is
    hard for both, so the interval of the ratio is far narrower than those of the perplexities.
    Raises InferometerError when the two were not scored on the same windows.
    """
    rows = []
    for (model, scheme), table in windows.items():
        if table.empty:  # skipped
            continue
        nll = _nll(windows, model, scheme, reference)
        own = bootstrap_mean(nll)
        paired = bootstrap_mean(nll - _nll(windows, model, reference, reference))
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


def summarize_gains(windows: Windows, bases: Mapping[str, str], reference: str) -> pd.DataFrame:
    """The GAINS table: `bases` maps each smoothed or rotated scheme to the same grids without that.

    The share of a gap is null where the base shows no gap to float that the sample could tell from chance.
    """
    rows = []
    for model in dict.fromkeys(model for model, _ in windows):
        for scheme, base in bases.items():
            if windows[model, scheme].empty or windows[model, base].empty:  # skipped
                continue
            sample = np.stack([_nll(windows, model, name, reference) for name in (scheme, base, reference)], axis=1)
            ratio = bootstrap(sample, lambda means: np.exp(means[..., 0] - means[..., 1]))
            worse = bootstrap_mean(sample[:, 1] - sample[:, 2]).low > 0
            closed = bootstrap(sample, _gap_closed) if worse else Interval(np.nan, np.nan, np.nan)
            rows.append(
                {
                    "model": model,
                    "scheme": scheme,
                    "base": base,
                    "ratio": ratio.estimate,
                    "ratio_low": ratio.low,
                    "ratio_high": ratio.high,
                    "gap_closed": closed.estimate,
                    "gap_closed_low": closed.low,
                    "gap_closed_high": closed.high,
                }
            )
    return pd.DataFrame(rows, columns=[column.name for column in GAINS.columns])


def _gap_closed(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the excess perplexity over float that a scheme removes: means [..., (scheme, base, float)]."""
    scheme, base, reference = np.exp(np.moveaxis(means, -1, 0))
    share: NDArray[np.float64] = (base - scheme) / (base - reference)
    return share
