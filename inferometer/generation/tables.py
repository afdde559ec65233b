"""Tables of the generation chapter."""

from inferometer.tables import Column, Table

ALL_WORDS = "*"  # in the place of a word

_PROMPT = Column("prompt", "string", "name of the prompt in the configuration")
_MODEL = Column("model", "string", "model name in the configuration")
_MACHINE = (
    Column("device", "string", "cpu or cuda"),
    Column("dtype", "string", "dtype of the model"),
)

WRITTEN = Table(
    path="<model>/generation/written.parquet",
    meaning="What a model wrote after each prompt, the likeliest token every time, and where it fell into a loop.",
    columns=(
        _PROMPT,
        Column("prompt_tokens", "int64", "tokens of the prompt, the chat format included"),
        Column("new_tokens", "int64", "tokens written, whether or not the text had ended before"),
        Column("text", "string", "what was written, up to the first token that ends a text"),
        Column("ended_after", "int64", "tokens written before the first that ends a text; null: none", nullable=True),
        Column("loop_after", "int64", "tokens written before the loop at the end begins; null: none", nullable=True),
        Column("loop_period", "int64", "tokens after which the loop begins again; null: none", nullable=True),
        Column("no_attention", "string", "why the attention received is not known; null where it is", nullable=True),
        *_MACHINE,
    ),
    key=("prompt",),
)

FEATURES = Table(
    path="<model>/generation/features.parquet",
    meaning="Every token of the prompts and of what was written after them, as it is to the model.",
    columns=(
        _PROMPT,
        Column("position", "int64", "position in the prompt and what follows, from 0"),
        Column("token", "int64", "token id"),
        Column("text", "string", "the token's text, blanks included"),
        Column("generated", "bool", "whether the model wrote it"),
        Column("own", "bool", "whether it is of the prompt's own text, not of the chat format and not written"),
        Column("entropy", "float64", "of the distribution that it is drawn from, in nats; null first", nullable=True),
        Column("rarity", "float64", "-log of its probability, in nats; null for the first", nullable=True),
        Column("saliency_norm", "float64", "L2 norm of the gradient of all positions' likeliest logits"),
        Column("gradient_input", "float64", "dot product of that gradient and the token's embedding"),
        Column(
            "first_saliency_norm",
            "float64",
            "L2 norm of the gradient of the first written token's logit; null for written tokens",
            nullable=True,
        ),
        Column(
            "received_attention",
            "float64",
            "mean weight from later tokens, over layers and heads; null for the last, or where unknown",
            nullable=True,
        ),
        Column("repeats", "bool", "whether it is the last of 8 written tokens that were written in a row before"),
    ),
    key=("prompt", "position"),
)

INSERTIONS = Table(
    path="<model>/generation/insertions.parquet",
    meaning="How much a word surprises the model in the middle of a text where it does not belong.",
    columns=(
        Column("kind", "string", "rare or common"),
        Column("word", "string", "the word that was inserted"),
        Column("context", "int64", "number of the text, from 0"),
        Column("word_tokens", "int64", "tokens of the word"),
        Column("rarity", "float64", "mean rarity of the word's tokens, in nats"),
        Column("first_rarity", "float64", "rarity of its first token, in nats"),
        Column("word_rarity", "float64", "sum over its tokens: -log of the whole word's probability, in nats"),
        Column("stood_rarity", "float64", "rarity of the token that stood there, in nats"),
        Column("after_rarity", "float64", "mean rarity of the 16 tokens after the word, in nats"),
        Column("stood_after_rarity", "float64", "mean rarity of the same 16 tokens without the word, in nats"),
        *_MACHINE,
    ),
    key=("kind", "word", "context"),
)

LOGGED = Table(
    path="summary/generation.parquet",
    meaning="The features of what was written, as means over each 64 tokens.",
    columns=(
        _MODEL,
        _PROMPT,
        Column("tokens", "int64", "tokens written up to the end of the stretch"),
        Column("stretch_tokens", "int64", "tokens of the stretch: 64, or what is left at the end"),
        Column("entropy", "float64", "mean entropy of the distributions that its tokens are drawn from, in nats"),
        Column("entropy_low", "float64", "their lower quartile"),
        Column("entropy_high", "float64", "their upper quartile"),
        Column("rarity", "float64", "mean rarity of its tokens, in nats"),
        Column("saliency_norm", "float64", "mean L2 norm of the gradient"),
        Column("gradient_input", "float64", "mean of gradient times input"),
        Column("received_attention", "float64", "mean attention received, where known", nullable=True),
        Column("repeated", "float64", "share of its tokens that are the last of 8 which were written in a row before"),
    ),
    key=("model", "prompt", "tokens"),
)


def _with_interval(name: str, meaning: str, over: str) -> tuple[Column, Column, Column]:
    return (
        Column(name, "float64", meaning),
        Column(f"{name}_low", "float64", f"lower end of its 95 % bootstrap interval over {over}"),
        Column(f"{name}_high", "float64", f"upper end of its 95 % bootstrap interval over {over}"),
    )


INSERTED = Table(
    path="summary/insertions.parquet",
    meaning="What inserted words are to the model, each alone and all of a kind together, paired text by text.",
    columns=(
        _MODEL,
        Column("kind", "string", "rare or common"),
        Column("word", "string", "the word, or * for all words of the kind"),
        Column("words", "int64", "words that the row is of"),
        Column("contexts", "int64", "texts that each was inserted into"),
        Column("word_tokens", "float64", "tokens of the word, mean over words"),
        *_with_interval("rarity", "mean rarity of the word's tokens, in nats", "texts and words"),
        *_with_interval("first_rarity", "rarity of its first token, in nats", "texts and words"),
        *_with_interval("word_rarity", "-log of the whole word's probability, in nats", "texts and words"),
        Column("stood_rarity", "float64", "mean rarity of the token that stood there, in nats"),
        *_with_interval("increase", "rarity less that of the token that stood there", "texts and words, paired"),
        *_with_interval("after_increase", "change of the mean rarity of the next 16 tokens", "texts and words, paired"),
    ),
    key=("model", "kind", "word"),
)
