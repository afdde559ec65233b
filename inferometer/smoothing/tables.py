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
    meaning="Every place that smoothing could be folded into: folded, with the layers that read it, or refused, with "
    "the reason.",
    columns=(
        Column("site", "string", "module name of the norm, or of the linear layer before"),
        Column("place", "int64", "position in the order of folding, from 0"),
        Column("folded", "bool", "whether smoothing is folded into it"),
        Column("layers", "string", "linear layers that read it, separated by spaces; empty if refused"),
        Column(
            "offset", "float64", "what a norm adds to its weight before multiplying; null for others", nullable=True
        ),
        Column("first_row", "int64", "first output of a linear layer that is scaled; null for norms", nullable=True),
        Column("rows", "int64", "outputs of a linear layer that are scaled; null for norms", nullable=True),
        Column("head_dim", "int64", "channels of a head, where several heads read one", nullable=True),
        Column("reason", "string", "why it is refused", nullable=True),
        Column("logit_error", "float64", "relative error of the float logits after folding all sites, in float32"),
    ),
    key=("site",),
)

ALPHAS = Table(
    path="<model>/smoothing/<scheme>/alphas.parquet",
    meaning="The strengths of smoothing that were tried at each site, how far its layers' outputs were then off, and "
    "the one that was chosen.",
    columns=(
        Column("site", "string", "module name of the norm, or of the linear layer before"),
        Column("alpha", "float64", "strength of smoothing"),
        Column(
            "error",
            "float64",
            "squared error of the outputs on calibration rows over their power; null where nothing was searched",
            nullable=True,
        ),
        Column("chosen", "bool", "whether the site is smoothed at this strength"),
    ),
    key=("site", "alpha"),
)
