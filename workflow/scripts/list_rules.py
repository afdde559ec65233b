"""Write down which rule of the study waits for which."""

from pathlib import Path

import pandas as pd
from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.provenance.tables import RULES
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    pairs = pd.DataFrame(snakemake.params.needs, columns=["rule", "needs"])
    write_table(RULES, pairs, Path(snakemake.output[0]))
