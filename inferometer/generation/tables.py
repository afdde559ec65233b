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


_TEMPERATURE = Column("temperature", "float64", "what the logits are divided by; 0: the likeliest token every time")

SAMPLES = Table(
    path="<model>/generation/samples.parquet",
    meaning="What a model wrote after each prompt by chance, at every temperature and with every seed.",
    columns=(
        _PROMPT,
        _TEMPERATURE,
        Column("seed", "int64", "of its draws; at temperature 0 the first, since all write the same"),
        Column("text", "string", "what was written, up to the first token that ends a text"),
        Column("token_ids", "string", "ids of the tokens up to there, with blanks between"),
        Column("tokens", "int64", "tokens that were drawn, the one that ends the text included"),
        Column("ended_after", "int64", "tokens before the one that ends the text; null: it did not end", nullable=True),
        Column("entropy", "float64", "mean entropy of the model's own distributions (temperature 1) along it, in nats"),
        Column("sampling_entropy", "float64", "mean entropy of the distributions that were drawn from, in nats"),
        Column("nll", "float64", "mean -log of the model's own probability of its tokens, in nats"),
        Column("repeated", "float64", "share of the text's tokens that are the last of 8 written in a row before"),
        *_MACHINE,
    ),
    key=("prompt", "temperature", "seed"),
)

DIVERSITY = Table(
    path="<model>/generation/diversity.parquet",
    meaning="How much the samples of one prompt differ at each temperature, and what they are like.",
    columns=(
        _PROMPT,
        _TEMPERATURE,
        Column("samples", "int64", "texts written; the one at temperature 0 counts as often as there are seeds"),
        Column("distinct_1", "float64", "different tokens over all tokens of the samples together"),
        Column("distinct_2", "float64", "different pairs of tokens in a row over all such pairs"),
        Column("self_bleu", "float64", "mean BLEU of each sample against the others; 1: all the same"),
        Column("unique", "float64", "share of samples that differ from all before them"),
        Column("repeated_4", "float64", "mean share of a sample's runs of 4 tokens that it has before (seq-rep-4)"),
        Column("repeated_8", "float64", "mean share of its tokens that are the last of 8 written in a row before"),
        Column("entropy", "float64", "mean over samples of that of the model's own distributions, in nats"),
        Column("sampling_entropy", "float64", "mean over samples of that of what was drawn from, in nats"),
        Column("nll", "float64", "mean over samples of that of the model's own probabilities, in nats a token"),
        Column("tokens", "float64", "mean tokens drawn"),
        Column("ended", "float64", "share of samples whose text ended"),
    ),
    key=("prompt", "temperature"),
)

# What a reader is shown of DIVERSITY: the column behind each measure, and its name with unit.
MEASURES = {
    "distinct_1": ("distinct_1", "distinct-1"),
    "distinct_2": ("distinct_2", "distinct-2"),
    "self_bleu": ("self_bleu", "self-BLEU"),
    "unique": ("unique", "unique outputs"),
    "repeated_4": ("repeated_4", "repeated 4-grams"),
    "repeated_8": ("repeated_8", "repeated 8-grams"),
    "perplexity": ("nll", "perplexity of the output"),
    "entropy": ("entropy", "entropy of the model (nats)"),
    "sampling_entropy": ("sampling_entropy", "entropy of what is drawn from (nats)"),
}

TEMPERATURES = Table(
    path="summary/diversity.parquet",
    meaning="Diversity, repetition and perplexity of what was written, by temperature.",
    columns=(
        _MODEL,
        Column("measure", "string", "a column of diversity.parquet, or perplexity, which is exp of nll"),
        _TEMPERATURE,
        Column("prompts", "int64", "prompts that the row is of"),
        *_with_interval("value", "mean over prompts; perplexity: exp of the mean of nll", "prompts"),
        *_with_interval("change", "value less that at the lowest temperature", "prompts, paired"),
    ),
    key=("model", "measure", "temperature"),
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
