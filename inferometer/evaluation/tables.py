"""Tables of the evaluation chapter."""

from inferometer.tables import Column, Table

WINDOWS = Table(
    path="<model>/evaluation/<scheme>/perplexity.parquet",
    meaning="The raw observations behind every perplexity: one row a window of text.",
    columns=(
        Column("corpus", "string", "corpus name in the configuration"),
        Column("protocol", "string", "how text was cut and scored"),
        Column("window", "int64", "position of the window in the text, from 0"),
        Column("tokens", "int64", "tokens predicted: all but the first of the window"),
        Column("nll", "float64", "mean negative log-likelihood of a predicted token, in nats"),
        Column("device", "string", "cpu or cuda"),
        Column("dtype", "string", "dtype of the float parts of the model"),
    ),
    key=("corpus", "protocol", "window"),
)

PERPLEXITY = Table(
    path="summary/perplexity.parquet",
    meaning="Perplexity of every scheme, alone and paired against the float model window by window.",
    columns=(
        Column("model", "string", "model name in the configuration"),
        Column("scheme", "string", "scheme name in the configuration"),
        Column("corpus", "string", "corpus name in the configuration"),
        Column("protocol", "string", "how text was cut and scored"),
        Column("window_tokens", "int64", "tokens of a window"),
        Column("windows", "int64", "windows scored"),
        Column("tokens", "int64", "tokens predicted"),
        Column("perplexity", "float64", "exp of the mean of window means"),
        Column("perplexity_low", "float64", "lower end of its 95 % bootstrap interval over windows"),
        Column("perplexity_high", "float64", "upper end of its 95 % bootstrap interval over windows"),
        Column("ratio", "float64", "perplexity over that of the float model on the same windows"),
        Column("ratio_low", "float64", "lower end of its 95 % paired bootstrap interval"),
        Column("ratio_high", "float64", "upper end of its 95 % paired bootstrap interval"),
        Column("device", "string", "cpu or cuda"),
        Column("dtype", "string", "dtype of the float parts of the model"),
    ),
    key=("model", "scheme"),
)

GAINS = Table(
    path="summary/smoothing_gains.parquet",
    meaning="What smoothing alone gains: each smoothed scheme against the same scheme without smoothing.",
    columns=(
        Column("model", "string", "model name in the configuration"),
        Column("scheme", "string", "scheme that smooths"),
        Column("base", "string", "scheme with the same grids and no smoothing"),
        Column("ratio", "float64", "perplexity of the scheme over that of the base, paired"),
        Column("ratio_low", "float64", "lower end of its 95 % interval"),
        Column("ratio_high", "float64", "upper end of its 95 % interval"),
        Column(
            "gap_closed",
            "float64",
            "share of the base's perplexity excess over float that smoothing removes",
            nullable=True,
        ),
        Column("gap_closed_low", "float64", "lower end of its 95 % interval", nullable=True),
        Column("gap_closed_high", "float64", "upper end of its 95 % interval", nullable=True),
    ),
    key=("model", "scheme"),
)
