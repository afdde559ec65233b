"""Tables of the smoothing chapter."""

from inferometer.tables import Column, Table

SCALES = Table(
    path="<model>/smoothing/<scheme>/scales.parquet",
    meaning="The smoothing factor of every channel: norms are divided by it, the layers that read them multiplied.",
    columns=(
        Column("site", "string", "module name of the norm"),
        Column("channel", "int64", "channel, from 0"),
        Column("factor", "float32", "smoothing factor s"),
    ),
    key=("site", "channel"),
)

SITES = Table(
    path="<model>/smoothing/<scheme>/sites.parquet",
    meaning="Every norm of the model: folded, with the layers that read it, or refused, with the reason.",
    columns=(
        Column("site", "string", "module name of the norm"),
        Column("folded", "bool", "whether smoothing is folded into it"),
        Column("layers", "string", "linear layers that read it, separated by spaces; empty if refused"),
        Column("offset", "float64", "what the norm adds to its weight before multiplying", nullable=True),
        Column("reason", "string", "why it is refused", nullable=True),
        Column("logit_error", "float64", "relative error of the float logits after folding all sites, in float32"),
    ),
    key=("site",),
)
