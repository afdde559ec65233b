"""This machine's ridge points from its measured repetitions; needs no torch."""

import pandas as pd


def machine_ridges(machine: pd.DataFrame) -> pd.DataFrame:
    """Median rates of a MACHINE table: a row for each dtype that was multiplied.

    Columns: dtype, device_name, threads, load_average, peak_giga_per_s (operations), bandwidth_gb_per_s (bytes),
    ridge (operations per byte). Medians, since a foreign process slows single repetitions.
    """
    rates = machine.assign(rate=machine["work"] / machine["seconds"])
    medians = rates.groupby(["what", "dtype"])["rate"].median()
    bandwidth = float(medians["copy"].iloc[0])
    first = machine.iloc[0]
    return pd.DataFrame(
        [
            {
                "dtype": dtype,
                "device_name": first["device_name"],
                "threads": int(first["threads"]),
                "load_average": float(first["load_average"]),
                "peak_giga_per_s": peak / 1e9,
                "bandwidth_gb_per_s": bandwidth / 1e9,
                "ridge": peak / bandwidth,
            }
            for dtype, peak in medians["multiply"].items()
        ]
    )
