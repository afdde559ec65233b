"""Ask the tables of results about every claim of the ledger and of the user."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.claims.evidence import Evidence
from inferometer.claims.judge import judge
from inferometer.claims.ledger import read_claims
from inferometer.claims.tables import CLAIMS
from inferometer.jobs import job
from inferometer.tables import write_csv, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    shipped = Path(snakemake.scriptdir).parents[1] / "report/claims.yaml"  # no parameter, as in write_report.py
    claims = read_claims([shipped, *map(Path, snakemake.input.claims)])
    output = Path(snakemake.output.table)
    evidence = Evidence(output.parent, map(Path, snakemake.input.tables))
    write_table(CLAIMS, judge(claims, evidence, snakemake.params.models), output)
    write_csv(CLAIMS, output, Path(snakemake.output.csv))
