"""Tables of what evicting tokens from a windowed cache costs."""

from inferometer.tables import Column, Table

_ARM = (
    Column("arm", "string", "full, window, or window + the number of sinks"),
    Column("sink_tokens", "int64", "first tokens that are never evicted; null where nothing is", nullable=True),
    Column("window_tokens", "int64", "tokens that a windowed cache holds, sinks and the reading token among them"),
)
_REASON = Column("reason", "string", "why the arm can't be measured; null where it is", nullable=True)

EVICTION = Table(
    path="<model>/attention/eviction.parquet",
    meaning="How well each token of long texts is predicted from what is left of those before it.",
    columns=(
        *_ARM,
        Column("corpus", "string", "corpus name in the configuration"),
        Column("text", "int64", "number of the text, from 0"),
        Column("position", "int64", "position of the predicted token: as many tokens were read before it"),
        Column("nll", "float64", "-ln of the token's probability, in nats; null where not measured", nullable=True),
        _REASON,
        Column("device", "string", "cpu or cuda"),
        Column("dtype", "string", "dtype of the model"),
    ),
    key=("arm", "text", "position"),
)


def _with_interval(name: str, meaning: str) -> tuple[Column, Column, Column]:
    return (
        Column(name, "float64", f"{meaning}; null where not measured", nullable=True),
        Column(f"{name}_low", "float64", "lower end of its 95 % bootstrap interval over texts", nullable=True),
        Column(f"{name}_high", "float64", "upper end of its 95 % bootstrap interval over texts", nullable=True),
    )


EVICTED = Table(
    path="summary/eviction.parquet",
    meaning="Perplexity by what the cache keeps and by stretches of the text, against a full cache and a plain window.",
    columns=(
        Column("model", "string", "model name in the configuration"),
        *_ARM,
        Column(
            "span",
            "string",
            "before: nothing is evicted yet; first: the first tokens after that; after: all of them; quarter: a "
            "quarter of the window's length anywhere",
        ),
        Column("first_position", "int64", "tokens read before the first predicted one of the stretch"),
        Column("last_position", "int64", "tokens read before the last"),
        Column("texts", "int64", "texts that were read"),
        *_with_interval("perplexity", "exp of the mean nll over the stretch and all texts"),
        *_with_interval("increase", "mean nll in nats a token less that with a full cache, paired"),
        *_with_interval("saved", "mean nll in nats a token with a plain window less this one's, paired"),
        Column("difference", "float64", "largest of a token's nll against a full cache, in nats", nullable=True),
        _REASON,
    ),
    key=("model", "arm", "span", "first_position"),
)
