"""Dynamic ranges of every linear layer: its weight beside its input."""

import pandas as pd

from inferometer.layers import decoder_layer_index


def summarize_ranges(model: str, activations: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """The RANGES table of one model from its ACTIVATIONS and WEIGHTS tables.

    `ratio` is the largest input magnitude over the largest weight magnitude: how unevenly the two are hard to round.
    """
    extremes = {"min": "min", "max": "max"}
    weight = weights[weights["axis"] == "input"].groupby("layer").agg(extremes).add_prefix("weight_")
    counted = activations.groupby(["layer", "first_token"]).agg(extremes).add_prefix("activation_").reset_index()
    ranges = counted.merge(weight, on="layer").assign(model=model)
    activation_absmax = ranges[["activation_min", "activation_max"]].abs().max(axis=1)
    weight_absmax = ranges[["weight_min", "weight_max"]].abs().max(axis=1)
    ranges["ratio"] = activation_absmax / weight_absmax
    ranges["decoder_layer"] = ranges["layer"].map(decoder_layer_index).astype("Int64")
    return ranges
