"""Dynamic ranges of every linear layer: its weight beside its input."""

import pandas as pd

from inferometer.layers import decoder_layer_index


def summarize_ranges(model: str, activations: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """The RANGES table of one model from its ACTIVATIONS and WEIGHTS tables.

    `ratio` is the largest input magnitude over the largest weight magnitude: how unevenly the two are hard to round.
    """
    weight = (
        weights[weights["axis"] == "input"].groupby("layer").agg(weight_min=("min", "min"), weight_max=("max", "max"))
    )
    inputs = activations.sort_values(["layer", "first_token", "channel"]).groupby(["layer", "first_token"])
    ranges = inputs.agg(
        activation_min=("min", "min"),
        activation_max=("max", "max"),
        beyond_6_sigma=("beyond_6_sigma", "mean"),
    )
    largest = activations.loc[inputs["absmax"].idxmax(), ["layer", "first_token", "channel"]]
    ranges = ranges.join(largest.set_index(["layer", "first_token"])["channel"].rename("largest_channel"))
    ranges = ranges.reset_index().merge(weight, on="layer").assign(model=model)
    activation_absmax = ranges[["activation_min", "activation_max"]].abs().max(axis=1)
    weight_absmax = ranges[["weight_min", "weight_max"]].abs().max(axis=1)
    ranges["ratio"] = activation_absmax / weight_absmax
    ranges["decoder_layer"] = ranges["layer"].map(decoder_layer_index).astype("Int64")
    return ranges
