"""Sites and factors as tables hold them, for whoever folds them into a model again.

Apart from the chapter that finds and proves them, so that a change there reruns no evaluation without smoothing.
"""

import pandas as pd
import torch
from torch import Tensor

from inferometer.smoothing.site import Site
from inferometer.tables import records


def sites_of(table: pd.DataFrame) -> list[Site]:
    """The sites that a SITES table says are folded, in the order in which their chapter found them."""
    return [
        Site(
            name=row["site"],
            layers=tuple(row["layers"].split()),
            offset=row["offset"],
            rows=None if row["rows"] is None else (row["first_row"], row["rows"]),
            head_dim=row["head_dim"],
        )
        for row in records(table[table["folded"]].sort_values("place"))
    ]


def factors_of(table: pd.DataFrame) -> dict[str, Tensor]:
    """The factors [channels] of each site of a SCALES table, by site name."""
    ordered = table.sort_values(["site", "channel"])
    return {str(site): torch.tensor(rows["factor"].to_numpy()) for site, rows in ordered.groupby("site")}
