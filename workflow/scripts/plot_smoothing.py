"""Draw channel magnitudes before and after smoothing."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.calibration.tables import ACTIVATIONS, WEIGHTS
from inferometer.jobs import job
from inferometer.plotting import save
from inferometer.smoothing.figures import plot_smoothing
from inferometer.smoothing.tables import SCALES, SITES
from inferometer.tables import read_table

snakemake: Snakemake

with job(snakemake.log[0]):
    sources = {"activations": ACTIVATIONS, "weights": WEIGHTS, "scales": SCALES, "sites": SITES}
    tables = {name: read_table(table, Path(snakemake.input[name])) for name, table in sources.items()}
    save(plot_smoothing(**tables), Path(snakemake.output[0]), snakemake.params.dpi)
