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

FIDELITY = Table(
    path="<model>/evaluation/<scheme>/fidelity.parquet",
    meaning="Every predicted token against the float model's prediction on the same text.",
    columns=(
        Column("window", "int64", "position of the window in the text, from 0"),
        Column("position", "int64", "position of the predicted token in the window; the first has none"),
        Column("nll", "float32", "negative log-likelihood of the token, in nats"),
        Column("kl_divergence", "float32", "KL divergence of the prediction from the float model's, in nats"),
        Column("same_top_token", "bool", "whether both find the same token the likeliest"),
    ),
    key=("window", "position"),
)

LAYERS = Table(
    path="<model>/evaluation/<scheme>/layers.parquet",
    meaning="Every rounded layer: how far it is off, and what it stores.",
    columns=(
        Column("layer", "string", "module name of the linear layer"),
        Column(
            "weight_sqnr_db",
            "float64",
            "power of the weight over that of its rounding error, in decibels; null where the weight is not rounded "
            "or in a library's hands",
            nullable=True,
        ),
        Column(
            "output_sqnr_db",
            "float64",
            "power of the float output over that of the difference on the same input, in decibels; null where there is "
            "none",
            nullable=True,
        ),
        Column("stored_bytes", "int64", "exact bytes of codes, scales and zero points"),
        Column("float_bytes", "int64", "bytes of the weight in float"),
        Column("kernel", "string", "what multiplies the codes; null where rounding is simulated", nullable=True),
    ),
    key=("layer",),
)

STORAGE = Table(
    path="<model>/evaluation/<scheme>/storage.parquet",
    meaning="What a scheme stores, in exact bytes, and what it computes with; or why it was skipped.",
    columns=(
        Column("engine", "string", "float, simulated, integer or bitsandbytes"),
        Column("kernels", "string", "what multiplies the codes, separated by spaces", nullable=True),
        Column("rounded_layers", "int64", "linear layers that are rounded"),
        Column("rounded_weights", "int64", "weights in them"),
        Column("rounded_bytes", "int64", "exact bytes of their codes, scales and zero points"),
        Column("float_bytes", "int64", "bytes of all that stays in float, in the dtype that it has here"),
        Column("weights_bytes", "int64", "both together"),
        Column("outlier_share", "float64", "share of input channels taken for outliers", nullable=True),
        Column("skipped", "string", "why the scheme could not be run here", nullable=True),
    ),
    key=("engine",),
)

SENSITIVITY = Table(
    path="<model>/evaluation/<scheme>/sensitivity.parquet",
    meaning="What rounding a single layer does to the model, with all the others in float.",
    columns=(
        Column("layer", "string", "module name of the linear layer"),
        Column("kl_divergence", "float64", "mean KL divergence of a prediction from the float model's, in nats"),
        Column("tokens", "int64", "predictions that the mean is taken over"),
    ),
    key=("layer",),
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
    path="summary/gains.parquet",
    meaning="What smoothing or rotation alone gains: each such scheme against the same grids without it.",
    columns=(
        Column("model", "string", "model name in the configuration"),
        Column("scheme", "string", "scheme that smooths or rotates"),
        Column("base", "string", "scheme with the same grids that does neither"),
        Column("ratio", "float64", "perplexity of the scheme over that of the base, paired"),
        Column("ratio_low", "float64", "lower end of its 95 % interval"),
        Column("ratio_high", "float64", "upper end of its 95 % interval"),
        Column(
            "gap_closed", "float64", "share of the base's perplexity excess over float that is removed", nullable=True
        ),
        Column("gap_closed_low", "float64", "lower end of its 95 % interval", nullable=True),
        Column("gap_closed_high", "float64", "upper end of its 95 % interval", nullable=True),
    ),
    key=("model", "scheme"),
)

CHOICES = Table(
    path="<model>/evaluation/<scheme>/choices.parquet",
    meaning="The raw observations behind every accuracy: one row for each ending of each question.",
    columns=(
        Column("question_set", "string", "question set name in the configuration"),
        Column("item", "int64", "position of the question in its file, from 0"),
        Column("ending", "int64", "position of the ending in the question, from 0"),
        Column("log_likelihood", "float64", "log-likelihood of the ending after its context, in nats"),
        Column("tokens", "int64", "tokens of the ending, over which the log-likelihood is a sum"),
        Column("characters", "int64", "characters of the ending, without the space before it"),
        Column("is_correct", "bool", "whether the ending is the right one"),
        Column("device", "string", "cpu or cuda"),
        Column("dtype", "string", "dtype of the float parts of the model"),
    ),
    key=("question_set", "item", "ending"),
)

ACCURACY = Table(
    path="summary/accuracy.parquet",
    meaning="Accuracy of every scheme on each question set, alone and paired against the float model item by item.",
    columns=(
        Column("model", "string", "model name in the configuration"),
        Column("scheme", "string", "scheme name in the configuration"),
        Column("question_set", "string", "question set name in the configuration"),
        Column("items", "int64", "questions asked"),
        Column("chance", "float64", "share that guessing would get right"),
        Column("acc", "float64", "share of items whose likeliest ending is the right one"),
        Column("acc_low", "float64", "lower end of its 95 % bootstrap interval over items"),
        Column("acc_high", "float64", "upper end of its 95 % bootstrap interval over items"),
        Column("acc_change", "float64", "acc less that of the float model on the same items"),
        Column("acc_change_low", "float64", "lower end of its 95 % paired bootstrap interval"),
        Column("acc_change_high", "float64", "upper end of its 95 % paired bootstrap interval"),
        Column("acc_norm", "float64", "share of items whose likeliest ending per character is the right one"),
        Column("acc_norm_low", "float64", "lower end of its 95 % bootstrap interval over items"),
        Column("acc_norm_high", "float64", "upper end of its 95 % bootstrap interval over items"),
        Column("acc_norm_change", "float64", "acc_norm less that of the float model on the same items"),
        Column("acc_norm_change_low", "float64", "lower end of its 95 % paired bootstrap interval"),
        Column("acc_norm_change_high", "float64", "upper end of its 95 % paired bootstrap interval"),
        Column("device", "string", "cpu or cuda"),
        Column("dtype", "string", "dtype of the float parts of the model"),
    ),
    key=("model", "scheme", "question_set"),
)


def _with_interval(name: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(name, "float64", meaning, nullable=True),
        Column(f"{name}_low", "float64", "lower end of its 95 % bootstrap interval", nullable=True),
        Column(f"{name}_high", "float64", "upper end of its 95 % bootstrap interval", nullable=True),
    )


SCHEMES = Table(
    path="summary/schemes.parquet",
    meaning="Every model and scheme in one row: all metrics with their intervals, exact bytes, and what computed them.",
    columns=(
        Column("model", "string", "model name in the configuration"),
        Column("scheme", "string", "scheme name in the configuration"),
        *STORAGE.columns,
        *_with_interval("perplexity", "exp of the mean of window means"),
        *_with_interval("ratio", "perplexity over that of the float model on the same windows"),
        *_with_interval("kl_divergence", "mean KL divergence of a prediction from the float model's, in nats"),
        *_with_interval("top_agreement", "share of predictions with the same likeliest token as the float model's"),
        *_with_interval("accuracy", "acc_norm over the items of all question sets together"),
        *_with_interval("accuracy_change", "accuracy less that of the float model on the same items"),
        Column("weight_sqnr_db", "float64", "median over layers of the weights' SQNR in decibels", nullable=True),
        Column("output_sqnr_db", "float64", "median over layers of the outputs' SQNR in decibels", nullable=True),
        Column(
            "bits_per_weight", "float64", "bits of a rounded weight, scales and zero points included", nullable=True
        ),
        Column("device", "string", "cpu or cuda", nullable=True),
        Column("dtype", "string", "dtype of the float parts of the model", nullable=True),
    ),
    key=("model", "scheme"),
)
