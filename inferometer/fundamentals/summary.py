"""Accuracies with their intervals and latencies with their quartiles, from the raw tables alone."""

import numpy as np
import pandas as pd

from inferometer.intervals import Interval, bootstrap_mean
from inferometer.samples import best_samples, spread

ARM = ["varied", "prompt_tokens", "new_tokens", "cache"]


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(interval.estimate * factor, interval.low * factor, interval.high * factor)


def summarize_digits(digits: pd.DataFrame) -> pd.DataFrame:
    """The DIGIT_ACCURACY table of a DIGITS table.

    Each image counts with its mean over seeds, and images are resampled: the interval covers other images of the same
    kind. How much seeds differ is told by the smallest and the largest change among them. Resampled are whole numbers
    of seeds, so that no rounding of floats decides on which side of zero an interval ends.
    """
    marked = digits.assign(
        right=(digits["prediction"] == digits["label"]).astype("int64"),
        right_in_float=(digits["float_prediction"] == digits["label"]).astype("int64"),
    )
    rows = []
    for (replaced, bits), group in marked.groupby(["replaced", "bits"]):
        by_item = group.groupby("item")[["right", "right_in_float"]].sum()
        by_seed = group.groupby("seed")[["right", "right_in_float"]].sum()
        changes = (by_seed["right"] - by_seed["right_in_float"]) / len(by_item)
        counts, changed = by_item["right"], by_item["right"] - by_item["right_in_float"]
        own, change = (
            _scaled(bootstrap_mean(sample.to_numpy(dtype=np.float64)), 1 / len(by_seed)) for sample in (counts, changed)
        )
        first = group.iloc[0]
        rows.append(
            {
                "replaced": replaced,
                "bits": bits,
                "seeds": len(by_seed),
                "items": len(by_item),
                "float_accuracy": group["right_in_float"].mean(),
                "accuracy": own.estimate,
                "accuracy_low": own.low,
                "accuracy_high": own.high,
                "change": change.estimate,
                "change_low": change.low,
                "change_high": change.high,
                "smallest_change": changes.min(),
                "largest_change": changes.max(),
                "output_mse": group["output_mse"].mean(),
                "sqnr_db": 10 * np.log10(group["output_power"].sum() / group["output_mse"].sum()),
                **{name: first[name] for name in ("device", "dtype")},
            }
        )
    return pd.DataFrame(rows)


def summarize_latency(latency: pd.DataFrame) -> pd.DataFrame:
    """The DECODER_SPEED table of a DECODER_LATENCY table.

    Contaminated samples are left out where at least two of an arm are clean; else all are taken, and counted.
    """
    rows = []
    for values, taken in best_samples(latency, ARM).groupby(ARM):
        rows.append(
            {
                **dict(zip(ARM, values, strict=True)),
                **spread(taken),
                **{name: taken[name].iloc[0] for name in ("device", "dtype")},
            }
        )
    table = pd.DataFrame(rows)
    without = table[~table["cache"]].set_index(ARM[:-1])
    pairs = without.reindex(pd.MultiIndex.from_frame(table[ARM[:-1]])).reset_index()
    return table.assign(
        speedup=pairs["latency_ms"] / table["latency_ms"], cpu_speedup=pairs["cpu_ms"] / table["cpu_ms"]
    )
