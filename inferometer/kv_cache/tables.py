"""Tables of the kv_cache chapter."""

from inferometer.samples import SAMPLE_OR_REASON, SPREAD
from inferometer.tables import Column, Table

_MODEL = Column("model", "string", "model name in the configuration")
_POLICY = Column("policy", "string", "policy name in the configuration")
_SCHEME = Column("scheme", "string", "scheme of the weights")
_DTYPE = Column("dtype", "string", "dtype of what is not rounded")
_DEVICE = Column("device", "string", "cpu or cuda")
_REASON = Column("reason", "string", "why nothing was measured; null where it was", nullable=True)
_EFFECTIVE = Column(
    "effective_bits",
    "float64",
    "bits of storage for each number of a key or value, with grids, waiting tokens and spare room",
    nullable=True,
)

CACHE_PERPLEXITY = Table(
    path="<model>/kv_cache/<policy>/perplexity.parquet",
    meaning="Every token predicted from what the cache stored of the tokens before it.",
    columns=(
        _SCHEME,
        Column("window", "int64", "position of the window in the text, from 0"),
        Column("position", "int64", "position of the predicted token in the window"),
        Column("nll", "float32", "negative log-likelihood of the token, in nats"),
        Column("kl_divergence", "float32", "KL divergence from the prediction with a float cache, in nats"),
        Column("same_top_token", "bool", "whether both caches find the same token the likeliest"),
    ),
    key=("scheme", "window", "position"),
)

CACHE_CHOICES = Table(
    path="<model>/kv_cache/<policy>/choices.parquet",
    meaning="One row for each ending of each question, scored after its context was stored in the cache.",
    columns=(
        _SCHEME,
        Column("question_set", "string", "question set name in the configuration"),
        Column("item", "int64", "position of the question in its file, from 0"),
        Column("ending", "int64", "position of the ending in the question, from 0"),
        Column("context_tokens", "int64", "tokens that were stored before the endings were read"),
        Column("log_likelihood", "float64", "log-likelihood of the ending after its context, in nats"),
        Column("tokens", "int64", "tokens of the ending, over which the log-likelihood is a sum"),
        Column("characters", "int64", "characters of the ending, without the space before it"),
        Column("is_correct", "bool", "whether the ending is the right one"),
        _DEVICE,
        _DTYPE,
    ),
    key=("scheme", "question_set", "item", "ending"),
)

CACHE_LATENCY = Table(
    path="<model>/kv_cache/<policy>/latency.parquet",
    meaning="Raw samples of how long one more token takes after prompts of several lengths.",
    columns=(
        _SCHEME,
        Column("prompt_tokens", "int64", "tokens in the cache before the first sample"),
        *SAMPLE_OR_REASON,
        _DTYPE,
        _DEVICE,
    ),
    key=("scheme", "prompt_tokens", "repetition"),
)

CACHE_MEMORY = Table(
    path="<model>/kv_cache/<policy>/memory.parquet",
    meaning="What the cache takes at the end of each window, question's context and prompt.",
    columns=(
        _SCHEME,
        Column("experiment", "string", "perplexity, choices, or prompt: the long prompts that are timed"),
        Column("index", "int64", "window, question in its order, or tokens of the prompt"),
        Column("tokens", "int64", "tokens that the cache holds"),
        Column("cache_bytes", "int64", "exact bytes of all tensors that the cache keeps alive", nullable=True),
        Column(
            "predicted_bytes",
            "float64",
            "what codes, grids and waiting tokens take by theory; null for a library's cache",
            nullable=True,
        ),
        _EFFECTIVE,
        Column(
            "peak_bytes",
            "int64",
            "of prompts: most memory while the cache was filled and written to, above that before",
            nullable=True,
        ),
        _DTYPE,
        _DEVICE,
        _REASON,
    ),
    key=("scheme", "experiment", "index"),
)

CACHE_TRACE = Table(
    path="<model>/kv_cache/<policy>/trace.parquet",
    meaning="A text written with the cache, token by token: how sure the model was, and the bits that the token got.",
    columns=(
        Column("position", "int64", "position of the token, from 0"),
        Column("token", "int64", "token id"),
        Column("text", "string", "the token as text"),
        Column("written", "bool", "whether the model wrote it; the others are the prompt"),
        Column(
            "entropy", "float64", "entropy in nats of what the model expected here; null at the start", nullable=True
        ),
        Column("bits", "int64", "bits of its codes; 0 where it stays in the model's dtype"),
        Column("running_bits", "float64", "mean bits of all tokens up to this one"),
    ),
    key=("position",),
)

CACHE_LENGTHS = Table(
    path="summary/kv_cache_lengths.parquet",
    meaning="What the cache takes after prompts of each length, and how long one more token takes then.",
    columns=(
        _MODEL,
        _SCHEME,
        _POLICY,
        Column("prompt_tokens", "int64", "tokens of the prompt"),
        Column("cache_bytes", "int64", "exact bytes of the cache", nullable=True),
        Column("predicted_bytes", "float64", "the same by theory; null for a library's cache", nullable=True),
        _EFFECTIVE,
        Column("peak_bytes", "int64", "most memory while the cache was filled and written to", nullable=True),
        *SPREAD,
        _DTYPE,
        _DEVICE,
        _REASON,
    ),
    key=("model", "scheme", "policy", "prompt_tokens"),
)

KV_CACHE = Table(
    path="summary/kv_cache.parquet",
    meaning="What every policy costs and takes, with 95 % intervals, paired against the float cache on the same texts.",
    columns=(
        _MODEL,
        _SCHEME,
        _POLICY,
        Column("place", "int64", "place of the policy in the configuration, from 0"),
        Column("feature", "string", "what bits are chosen by; null where all tokens have the same", nullable=True),
        Column("library", "string", "library that keeps the cache; null where we do", nullable=True),
        Column("keys", "string", "whether grids of keys are per token or per channel; null without", nullable=True),
        Column("group_size", "int64", "values that share a grid; null without", nullable=True),
        Column("bits", "float64", "bits of a code, on average; null where nothing is rounded", nullable=True),
        Column("effective_bits", "float64", "mean over windows of what is stored for each number", nullable=True),
        Column("windows", "int64", "windows of text"),
        Column("nll", "float64", "mean negative log-likelihood of a token, in nats", nullable=True),
        Column("nll_change", "float64", "the same less that with a float cache", nullable=True),
        Column("nll_change_low", "float64", "lower end of its interval, over windows", nullable=True),
        Column("nll_change_high", "float64", "upper end of its interval", nullable=True),
        Column("kl_divergence", "float64", "mean KL divergence from the float cache, in nats", nullable=True),
        Column("kl_divergence_low", "float64", "lower end of its interval, over windows", nullable=True),
        Column("kl_divergence_high", "float64", "upper end of its interval", nullable=True),
        Column("same_top_token", "float64", "share of tokens whose likeliest successor is the same", nullable=True),
        Column("items", "int64", "questions"),
        Column("accuracy", "float64", "share of questions whose likeliest ending is right", nullable=True),
        Column("accuracy_low", "float64", "lower end of its interval, over questions", nullable=True),
        Column("accuracy_high", "float64", "upper end of its interval", nullable=True),
        Column("accuracy_change", "float64", "the same less that with a float cache", nullable=True),
        Column("accuracy_change_low", "float64", "lower end of its interval", nullable=True),
        Column("accuracy_change_high", "float64", "upper end of its interval", nullable=True),
        Column("prompt_tokens", "int64", "longest prompt, of which the columns from here on are"),
        Column("cache_bytes", "int64", "exact bytes of the cache", nullable=True),
        Column("predicted_bytes", "float64", "the same by theory", nullable=True),
        Column("peak_bytes", "int64", "most memory while the cache was filled and written to", nullable=True),
        Column("decode_ms", "float64", "median milliseconds of one more token", nullable=True),
        Column("decode_ms_q25", "float64", "its lower quartile", nullable=True),
        Column("decode_ms_q75", "float64", "its upper quartile", nullable=True),
        Column("samples", "int64", "samples of it"),
        Column("contaminated", "int64", "how many of them are contaminated by other work"),
        _DTYPE,
        _DEVICE,
        _REASON,
    ),
    key=("model", "scheme", "policy"),
)

CACHE_PAIRS = Table(
    path="summary/kv_cache_pairs.parquet",
    meaning="Policies that choose bits, each against others with the same bits on average, paired on the same texts.",
    columns=(
        _MODEL,
        _SCHEME,
        Column("policy", "string", "policy that chooses bits"),
        Column("against", "string", "policy with the same average, or the same bits for all tokens"),
        Column("nll_change", "float64", "mean nll of the policy less that of the other, in nats"),
        Column("nll_change_low", "float64", "lower end of its 95 % interval, over windows"),
        Column("nll_change_high", "float64", "upper end of its interval"),
        Column("kl_change", "float64", "the same of the KL divergence from the float cache"),
        Column("kl_change_low", "float64", "lower end of its interval"),
        Column("kl_change_high", "float64", "upper end of its interval"),
        Column("accuracy_change", "float64", "the same of the share of right answers", nullable=True),
        Column("accuracy_change_low", "float64", "lower end of its interval, over questions", nullable=True),
        Column("accuracy_change_high", "float64", "upper end of its interval", nullable=True),
        Column("effective_bits_change", "float64", "the same of effective bits; what a fair comparison keeps at 0"),
    ),
    key=("model", "scheme", "policy", "against"),
)
