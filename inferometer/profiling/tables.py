"""Tables of the profiling chapter."""

from inferometer.samples import SAMPLE_OR_REASON, SPREAD
from inferometer.tables import Column, Table

_MODEL = Column("model", "string", "model name in the configuration")
_SCHEME = Column("scheme", "string", "scheme name in the configuration")
_DTYPE = Column("dtype", "string", "dtype of what is not rounded, and of the KV cache")
_LAYERS = Column("layers", "int64", "decoder layers that ran")
_DEVICE = Column("device", "string", "cpu or cuda")
_REASON = Column("reason", "string", "why nothing was measured; null where it was", nullable=True)

QUANTITIES = {  # what is weighed, and how it is called
    "cache_bytes": "tensors of the cache",
    "memory_bytes": "process, trimmed",
    "peak_bytes": "peak on the way",
}

_CELL = (
    _SCHEME,
    _DTYPE,
    _LAYERS,
    Column("prompt_tokens", "int64", "tokens of each prompt"),
    Column("batch", "int64", "prompts at once"),
    Column(
        "phase",
        "string",
        "prefill: the prompt, up to the first new token; decode: one more token; end_to_end: all of them",
    ),
)

LATENCY = Table(
    path="<model>/profiling/latency.parquet",
    meaning="Raw samples of how long a model reads and writes, by scheme, dtype, length of the prompt and batch.",
    columns=(
        *_CELL,
        Column("new_tokens", "int64", "tokens written by a pass; decode is the mean of all but the first"),
        *SAMPLE_OR_REASON,
        Column("kernels", "string", "integer kernels that multiply; null for float", nullable=True),
        _DEVICE,
    ),
    key=("scheme", "dtype", "layers", "prompt_tokens", "batch", "phase", "repetition"),
)

MEMORY = Table(
    path="<model>/profiling/memory.parquet",
    meaning="Memory of a model while it writes, after so many tokens.",
    columns=(
        _SCHEME,
        _DTYPE,
        _LAYERS,
        Column("new_tokens", "int64", "tokens written so far"),
        Column("context_tokens", "int64", "tokens in the cache: the prompt and all written ones but the newest"),
        Column("cache_bytes", "int64", "exact bytes of all tensors in the KV cache", nullable=True),
        Column(
            "memory_bytes",
            "int64",
            "memory of the process after it was trimmed (anonymous pages), or allocated on CUDA",
            nullable=True,
        ),
        Column("peak_bytes", "int64", "most memory since the row before, resident or allocated", nullable=True),
        _DEVICE,
        _REASON,
    ),
    key=("scheme", "dtype", "layers", "new_tokens"),
)

CACHE = Table(
    path="<model>/profiling/cache.parquet",
    meaning="Raw samples of how long writing takes with a KV cache and without.",
    columns=(
        Column("prompt_tokens", "int64", "tokens of the prompt"),
        Column("new_tokens", "int64", "tokens written"),
        Column("cache", "bool", "whether keys and values are kept"),
        *SAMPLE_OR_REASON,
        _DTYPE,
        _DEVICE,
    ),
    key=("prompt_tokens", "cache", "repetition"),
)

CACHE_CHECKS = Table(
    path="<model>/profiling/cache_checks.parquet",
    meaning="Logits of every written token with a KV cache against those without, on the same tokens.",
    columns=(
        Column("prompt_tokens", "int64", "tokens of the prompt"),
        Column("new_tokens", "int64", "tokens written"),
        Column("difference", "float64", "largest absolute difference of two logits", nullable=True),
        Column("largest_logit", "float64", "largest absolute logit", nullable=True),
        Column("same_tokens", "bool", "whether both would write the same tokens", nullable=True),
        Column("tolerance", "float64", "share of the largest logit that the difference may be"),
        _DTYPE,
        _DEVICE,
        _REASON,
    ),
    key=("prompt_tokens",),
)

KERNELS = Table(
    path="<model>/profiling/kernels.parquet",
    meaning="Raw samples of one layer's attention by different kernels, with the memory that they need beside.",
    columns=(
        Column(
            "kernel",
            "string",
            "standard: scores are written to memory; math, flash, efficient, cudnn: PyTorch's; flash_attn: the package",
        ),
        _DTYPE,
        Column("tokens", "int64", "tokens of the prompt, all of which ask"),
        *SAMPLE_OR_REASON,
        Column("extra_bytes", "int64", "most memory during a call above that before it", nullable=True),
        Column("output_bytes", "int64", "bytes of the result, which are part of that"),
        Column("score_bytes", "int64", "bytes of one matrix of scores of all heads"),
        Column("difference", "float64", "largest difference from the standard kernel in float64", nullable=True),
        _DEVICE,
    ),
    key=("kernel", "dtype", "tokens", "repetition"),
)

BASELINE = Table(
    path="<model>/profiling/baseline.parquet",
    meaning="What a model writes after a few prompts, how fast, and with how much memory and energy.",
    columns=(
        Column("prompt", "string", "name of the prompt in the configuration"),
        Column("batch", "int64", "copies of the prompt at once"),
        Column("prompt_tokens", "int64", "tokens of the prompt", nullable=True),
        Column("new_tokens", "int64", "tokens written after each copy"),
        Column("latency_ms", "float64", "milliseconds until all were written", nullable=True),
        Column("first_token_ms", "float64", "milliseconds until the first of them was", nullable=True),
        Column("tokens_per_s", "float64", "tokens written in a second, all copies together", nullable=True),
        Column("memory_bytes", "int64", "memory before, trimmed or allocated: the weights above all", nullable=True),
        Column("peak_bytes", "int64", "most memory while it wrote", nullable=True),
        Column("foreign_load", "float64", "share of all processors' time that went elsewhere meanwhile", nullable=True),
        Column("contaminated", "bool", "whether that was too much for the times to be believed"),
        Column("joules", "float64", "energy of the device meanwhile, whoever used it", nullable=True),
        Column("no_energy", "string", "why there is no figure for energy; null where there is", nullable=True),
        Column("text", "string", "what was written after the first copy", nullable=True),
        _DTYPE,
        _DEVICE,
        _REASON,
    ),
    key=("prompt", "batch"),
)

PROFILE = Table(
    path="summary/profiling.parquet",
    meaning="Latency of every cell, with what the machine's measured peaks allow.",
    columns=(
        _MODEL,
        *_CELL,
        Column("extrapolated", "bool", "whether the cell follows from runs with fewer layers"),
        *SPREAD,
        Column("latency_ms_low", "float64", "lower end of the 95 % interval of an extrapolation", nullable=True),
        Column("latency_ms_high", "float64", "upper end of it", nullable=True),
        Column("tokens_per_s", "float64", "tokens read (prefill) or written in a second of the median", nullable=True),
        Column("flops", "float64", "operations of one call, a multiply-add counted as two", nullable=True),
        Column("bytes", "float64", "bytes to and from memory of one call", nullable=True),
        Column("compute_ms", "float64", "what the operations take at the measured peaks", nullable=True),
        Column("memory_ms", "float64", "what the bytes take at the measured bandwidth", nullable=True),
        Column(
            "predicted_ms",
            "float64",
            "the larger of the two, summed over the passes of end_to_end",
            nullable=True,
        ),
        Column("ratio", "float64", "measured over predicted: 1 is what the roofline allows", nullable=True),
        Column("bound", "string", "compute or memory, the larger of the two; overhead above twice it", nullable=True),
        _DEVICE,
        _REASON,
    ),
    key=("model", "scheme", "dtype", "layers", "prompt_tokens", "batch", "phase"),
)

KNEES = Table(
    path="summary/knees.parquet",
    meaning="Where latency stops being flat and begins to rise with the length of the prompt.",
    columns=(
        _MODEL,
        _SCHEME,
        _DTYPE,
        _LAYERS,
        Column("batch", "int64", "prompts at once"),
        Column("phase", "string", "prefill or end_to_end"),
        Column("knee_tokens", "float64", "length at which the flat part ends"),
        Column("knee_tokens_low", "float64", "lower end of its 95 % interval"),
        Column("knee_tokens_high", "float64", "upper end of its 95 % interval"),
        Column("has_flat", "bool", "whether two lengths or more lie before it; one could not show that it is flat"),
        Column("rises", "bool", "whether latency rises within the lengths measured"),
        Column("flat_ms", "float64", "latency of the flat part"),
        Column("ms_per_token", "float64", "what each token beyond the knee adds"),
        Column("error", "float64", "root mean square of the relative deviations from the fit"),
        Column("shortest_tokens", "int64", "the shortest length measured"),
        Column("longest_tokens", "int64", "the longest length measured"),
        Column("bound_below", "string", "what binds the shortest length", nullable=True),
        Column("bound_above", "string", "what binds the longest length", nullable=True),
        _DEVICE,
    ),
    key=("model", "scheme", "dtype", "layers", "batch", "phase"),
)

SLOPES = Table(
    path="summary/memory.parquet",
    meaning="Memory against written tokens: linear regression, beside the bytes that the configuration predicts.",
    columns=(
        _MODEL,
        _SCHEME,
        _DTYPE,
        _LAYERS,
        Column("extrapolated", "bool", "whether the row follows from runs with fewer layers"),
        Column("quantity", "string", "cache_bytes, memory_bytes or peak_bytes, as in MEMORY"),
        Column("points", "int64", "lengths that the line is fitted to"),
        Column("bytes_per_token", "float64", "slope"),
        Column("standard_error", "float64", "standard error of the slope"),
        Column("intercept_bytes", "float64", "bytes at no token"),
        Column("r_squared", "float64", "coefficient of determination; null where extrapolated or flat", nullable=True),
        Column("p_value", "float64", "of the hypothesis of no slope; null in the same cases", nullable=True),
        Column("predicted_bytes_per_token", "float64", "what the configuration says that a token adds to the cache"),
        Column("ratio", "float64", "slope over that"),
        _DEVICE,
    ),
    key=("model", "scheme", "dtype", "layers", "quantity"),
)

CACHE_SPEED = Table(
    path="summary/cache.parquet",
    meaning="What the KV cache gains in writing, by length of the prompt.",
    columns=(
        _MODEL,
        Column("prompt_tokens", "int64", "tokens of the prompt"),
        Column("new_tokens", "int64", "tokens written"),
        Column("cache", "bool", "whether keys and values are kept"),
        *SPREAD,
        Column("speedup", "float64", "latency without the cache over this one", nullable=True),
        Column("speedup_low", "float64", "lower end of its 95 % interval", nullable=True),
        Column("speedup_high", "float64", "upper end of its 95 % interval", nullable=True),
        _DTYPE,
        _DEVICE,
        _REASON,
    ),
    key=("model", "prompt_tokens", "cache"),
)

KERNEL_SPEED = Table(
    path="summary/kernels.parquet",
    meaning="Attention kernels beside the standard one: time and extra memory.",
    columns=(
        _MODEL,
        Column("kernel", "string", "as in KERNELS"),
        _DTYPE,
        Column("tokens", "int64", "tokens of the prompt"),
        *SPREAD,
        Column("speedup", "float64", "median of the standard kernel over this one", nullable=True),
        Column("extra_bytes", "int64", "most memory during a call above that before it", nullable=True),
        Column("extra_ratio", "float64", "that over the extra memory of the standard kernel", nullable=True),
        Column("score_bytes", "int64", "bytes of one matrix of scores of all heads"),
        Column("difference", "float64", "largest difference from the standard kernel in float64", nullable=True),
        _DEVICE,
        _REASON,
    ),
    key=("model", "kernel", "dtype", "tokens"),
)
