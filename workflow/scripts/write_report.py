"""Put tables and figures together into the one page."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.files import whole_file
from inferometer.jobs import job
from inferometer.report.contents import contents
from inferometer.report.page import render
from inferometer.report.reproduce import as_text

snakemake: Snakemake

with job(snakemake.log[0]):
    templates = (
        Path(snakemake.scriptdir).parents[1] / "report"
    )  # no parameter: a checkout elsewhere makes no other page
    page, params = Path(snakemake.output.page), snakemake.params
    context = contents(params.config, page.parent, templates / "reported.yaml", params.jobs)
    render(templates, page, context)
    with whole_file(Path(snakemake.output.configuration)) as partial:
        partial.write_text(as_text(params.config), encoding="utf-8")
