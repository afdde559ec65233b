"""The table of what became of every claim."""

from inferometer.tables import Column, Table

CLAIMS = Table(
    path="claims.parquet",
    meaning="Every claim of the ledger, with what the tables of results say about it.",
    columns=(
        Column("claim", "string", "id of the claim in the ledger"),
        Column("model", "string", "model that it was judged for; empty where it is about none in particular"),
        Column("place", "int64", "order of the ledger, from 0"),
        Column("study", "string", "study that claims it"),
        Column("source", "string", "document and section"),
        Column("chapter", "string", "section of the page that shows the evidence"),
        Column("statement", "string", "the claim in plain words"),
        Column(
            "kind",
            "string",
            "figure: a printed value, judged only on the device and size that it is of; relation: what it is said to "
            "show, judged on every measured model; theory: what follows from a configuration alone",
        ),
        Column("reported", "float64", "number that the source prints, or the lower end of a range", nullable=True),
        Column("reported_to", "float64", "upper end of the range; null where it prints one number", nullable=True),
        Column("unit", "string", "unit of what is reported, measured and ruled; empty for none"),
        Column("measures", "string", "what the query measures, and what its interval is"),
        Column("measured", "float64", "the same quantity by the tables; null where not judged", nullable=True),
        Column("low", "float64", "lower end of its interval", nullable=True),
        Column("high", "float64", "upper end of its interval", nullable=True),
        Column("rule", "string", "where the measured value must lie for the claim to hold"),
        Column("verdict", "string", "supported, contradicted, inconclusive, not testable here, or failed"),
        Column("reason", "string", "why the verdict is so"),
        Column("device", "string", "cpu or cuda; null where it is not known or nothing ran", nullable=True),
        Column("query", "string", "the SQL query that was asked"),
    ),
    key=("claim", "model"),
)
