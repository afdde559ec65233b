"""This machine's ridge points from its measured samples; needs no torch."""

import pandas as pd

from inferometer.samples import best_samples

ARM = ["what", "dtype"]


def machine_ridges(machine: pd.DataFrame) -> pd.DataFrame:
    """Median rates of a MACHINE table: a row for each dtype that was multiplied.

    Columns: dtype, device_name, threads, samples, contaminated (of all samples), contaminated_taken (of those that the
    medians are of), peak_giga_per_s (operations), bandwidth_gb_per_s (bytes), ridge (operations per byte).
    """
    taken = best_samples(machine, ARM)
    medians = taken.assign(rate=1000 * taken["work"] / taken["wall_ms"]).groupby(ARM)["rate"].median()
    bandwidth = float(medians["copy"].iloc[0])
    first = machine.iloc[0]
    return pd.DataFrame(
        [
            {
                "dtype": dtype,
                "device_name": first["device_name"],
                "threads": int(first["threads"]),
                "samples": len(machine),
                "contaminated": int(machine["contaminated"].sum()),
                "contaminated_taken": int(taken["contaminated"].sum()),
                "peak_giga_per_s": peak / 1e9,
                "bandwidth_gb_per_s": bandwidth / 1e9,
                "ridge": peak / bandwidth,
            }
            for dtype, peak in medians["multiply"].items()
        ]
    )
