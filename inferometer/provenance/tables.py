"""Tables of the provenance chapter."""

from inferometer.tables import Column, Table

RULES = Table(
    path="provenance/rules.parquet",
    meaning="Which rule of this study reads what another one writes: Snakemake's rule graph.",
    columns=(
        Column("rule", "string", "rule that reads"),
        Column("needs", "string", "rule that writes what is read"),
    ),
    key=("rule", "needs"),
)
