"""What the samples of attention kernels come to; needs no torch."""

import pandas as pd

from inferometer.samples import best_samples, spread

ARM = ["kernel", "dtype", "tokens"]
SIZE = ["dtype", "tokens"]
KEPT = ["extra_bytes", "score_bytes", "difference", "device", "reason"]
STANDARD = "standard"
NAMES = (STANDARD, "math", "flash", "efficient", "cudnn", "flash_attn")  # of all kernels, in the order of a reader


def _over_standard(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column of every row over that of the standard kernel at the same size; null where either is, or it is 0."""
    standard = rows[rows["kernel"] == STANDARD].set_index(SIZE)[column].astype("float64")
    beside = standard.reindex(pd.MultiIndex.from_frame(rows[SIZE])).to_numpy()
    ratio = rows[column].astype("float64") / beside
    return ratio.where(beside > 0)


def summarize(kernels: pd.DataFrame) -> pd.DataFrame:
    """The KERNEL_SPEED table without its model, from KERNELS of one model."""
    rows = []
    for _, samples in best_samples(kernels, ARM).groupby(ARM, sort=False):
        first = samples.iloc[0]
        kept = {name: first[name] for name in (*ARM, *KEPT)}
        rows.append({**kept, **spread(samples)})
    speed = pd.DataFrame(rows)
    return speed.assign(
        speedup=1 / _over_standard(speed, "latency_ms"), extra_ratio=_over_standard(speed, "extra_bytes")
    )
