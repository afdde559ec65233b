"""Tables of the rotation chapter."""

from inferometer.tables import Column, Table

PATHS = Table(
    path="<model>/rotation/<seed>/paths.parquet",
    meaning="Every part of the model that the rotation changes, and the proof that the float model stays what it was.",
    columns=(
        Column("place", "int64", "position in the order of folding, from 0"),
        Column("role", "string", "embedding, reader, norm, writer, value or online: what the rotation does there"),
        Column("module", "string", "module name"),
        Column(
            "partner", "string", "the norm whose gain a reader takes up, or the layer that reads a value", nullable=True
        ),
        Column("offset", "float64", "what a norm adds to its weight before multiplying", nullable=True),
        Column("first_row", "int64", "first output of a value layer that is rotated", nullable=True),
        Column("rows", "int64", "outputs of a value layer that are rotated", nullable=True),
        Column("head_dim", "int64", "channels of a head that are rotated together", nullable=True),
        Column("logit_error", "float64", "relative error of the float logits with everything rotated, in float32"),
    ),
    key=("place",),
)

BASIS = Table(
    path="<model>/rotation/<seed>/basis.parquet",
    meaning=(
        "Weights rounded to 4 bits (asymmetric, groups of 32 inputs) as they are and as rotated: every linear layer of "
        "the decoder whose inputs part into such groups. Decibels are infinite where rounding changes nothing."
    ),
    columns=(
        Column("layer", "string", "module name of the linear layer"),
        Column(
            "weight_sqnr_db",
            "float64",
            "power of the weight as it is over that of its rounding error, in decibels; null where all are zero",
            nullable=True,
        ),
        Column(
            "rotated_weight_sqnr_db",
            "float64",
            "the same of the rotated weight, in decibels; null where all are zero",
            nullable=True,
        ),
    ),
    key=("layer",),
)
