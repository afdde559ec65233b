"""Sites and factors as tables hold them, for whoever folds them into a model again.

Apart from the chapter that finds and proves them, so that a change there reruns no evaluation without smoothing.
"""

import pandas as pd
import torch
from torch import Tensor

from inferometer.smoothing.sites import Site


def sites_of(table: pd.DataFrame) -> list[Site]:
    """The sites that a SITES table says are folded."""
    folded = table[table["folded"]]
    columns = (folded[name].tolist() for name in ("site", "layers", "offset"))
    return [Site(site, tuple(layers.split()), offset) for site, layers, offset in zip(*columns, strict=True)]


def factors_of(table: pd.DataFrame) -> dict[str, Tensor]:
    """The factors [channels] of each site of a SCALES table, by site name."""
    ordered = table.sort_values(["site", "channel"])
    return {str(site): torch.tensor(rows["factor"].to_numpy()) for site, rows in ordered.groupby("site")}
