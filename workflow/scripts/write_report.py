"""Put tables and figures together into the one page."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.jobs import job
from inferometer.report.contents import contents
from inferometer.report.page import render

snakemake: Snakemake

with job(snakemake.log[0]):
    templates = (
        Path(snakemake.scriptdir).parents[1] / "report"
    )  # no parameter: a checkout elsewhere makes no other page
    output = Path(snakemake.output[0])
    render(templates, output, contents(snakemake.params.config, output.parent, templates / "reported.yaml"))
