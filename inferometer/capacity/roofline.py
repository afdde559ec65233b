"""This machine's roofs and ridge points from its measured samples; needs no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pandas as pd

from inferometer.runs import Machine
from inferometer.samples import best_samples
from inferometer.tables import records

ARM = ["what", "dtype"]
DTYPES = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Roofs:
    """What nothing on this machine exceeds: peak operations a second by dtype, and bytes a second.

    A dtype without a measured peak is left out.
    """

    flops_per_s: Mapping[str, float]
    bytes_per_s: float


def summarize_machine(samples: pd.DataFrame, machine: Machine) -> pd.DataFrame:
    """The MACHINE table, of one row, from MACHINE_SAMPLES: the best rate of each arm, as McCalpin's STREAM reports it.

    Whatever comes between makes a sample slower and never faster, so the best one is nearest to the roof.
    """
    measured = samples[samples["calls"] > 0]
    taken = best_samples(measured, ARM)
    rates = taken.assign(rate=taken["work"] / taken["wall_ms"] / 1e6).groupby(ARM)["rate"].max().to_dict()
    kernels = measured[measured["dtype"] == "int8"]["kernel"]
    bandwidths = {f"{what}_gb_per_s": rates[what, "float32"] for what in ("read", "copy")}
    row = {
        **asdict(machine),
        **{f"{dtype}_giga_per_s": rates.get(("multiply", dtype)) for dtype in DTYPES},
        "int8_kernel": None if kernels.empty else kernels.iloc[0],
        **bandwidths,
        "bandwidth_gb_per_s": max(bandwidths.values()),
        "samples": len(measured),
        "contaminated": int(measured["contaminated"].sum()),
        "contaminated_taken": int(taken["contaminated"].sum()),
    }
    return pd.DataFrame([row])


def roofs(machine: pd.DataFrame) -> Roofs:
    """The roofs of a MACHINE table."""
    [row] = records(machine)
    peaks = {dtype: row[f"{dtype}_giga_per_s"] for dtype in DTYPES}
    return Roofs(
        {dtype: 1e9 * peak for dtype, peak in peaks.items() if peak is not None}, 1e9 * row["bandwidth_gb_per_s"]
    )


def machine_ridges(machine: pd.DataFrame) -> pd.DataFrame:
    """Ridge points of a MACHINE table: a row for each dtype with a peak.

    Columns: dtype, peak_giga_per_s (operations), bandwidth_gb_per_s (bytes), ridge (operations per byte).
    """
    found = roofs(machine)
    return pd.DataFrame(
        [
            {
                "dtype": dtype,
                "peak_giga_per_s": peak / 1e9,
                "bandwidth_gb_per_s": found.bytes_per_s / 1e9,
                "ridge": peak / found.bytes_per_s,
            }
            for dtype, peak in found.flops_per_s.items()
        ]
    )
