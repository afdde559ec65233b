"""Time and weigh attention kernels with a model's heads."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity.catalogue import config_file
from inferometer.device import choose_device
from inferometer.heads import heads_of
from inferometer.jobs import job
from inferometer.profiling.kernels import measure
from inferometer.profiling.tables import KERNELS
from inferometer.tables import write_table
from inferometer.timing import Enough

snakemake: Snakemake

with job(snakemake.log[0]):
    settings, file = snakemake.params.settings, Path(snakemake.input.checkpoint) / "config.json"
    heads, device = heads_of(config_file(file), str(file)), choose_device(snakemake.params.device)
    enough = Enough(settings["repetitions"], settings["seconds"])
    table = measure(heads, settings["tokens"], settings["dtypes"], enough, device)
    write_table(KERNELS, table, Path(snakemake.output[0]))
