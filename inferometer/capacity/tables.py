"""Tables of the capacity chapter."""

from inferometer.runs import MACHINE_COLUMNS
from inferometer.samples import SAMPLE_OR_REASON
from inferometer.tables import Column, Table

_MODEL = Column("model", "string", "name of a shipped shape or of a model of the study")
PARAMETERS = Table(
    path="capacity/parameters.parquet",
    meaning="Exact parameters of every model by kind of part, from its configuration alone.",
    columns=(
        _MODEL,
        Column("part", "string", "embedding, position, attention, mlp, router, norm or head; a tied head has no row"),
        Column("parameters", "int64", "parameters, biases included"),
        Column("active_parameters", "int64", "those that one token meets: of experts only the chosen ones"),
    ),
    key=("model", "part"),
)

WEIGHTS = Table(
    path="capacity/weights.parquet",
    meaning="Bytes of every model's weights in float and on common grids, from its configuration alone.",
    columns=(
        _MODEL,
        Column("grid", "string", "what linear layers in the decoder are rounded to; all else is in the study's dtype"),
        Column("rounded_bytes", "int64", "exact bytes of codes, scales and zero points"),
        Column("float_bytes", "int64", "bytes of all that is not rounded"),
        Column("weights_bytes", "int64", "both together"),
    ),
    key=("model", "grid"),
)

REQUESTS = Table(
    path="capacity/requests.parquet",
    meaning="How many requests fit: every model on every GPU, by context, bits of the KV cache and number of GPUs.",
    columns=(
        _MODEL,
        Column("gpu", "string", "GPU of the catalogue"),
        Column("parallel", "string", "tensor or pipeline: what several GPUs share; tensor for one"),
        Column("gpus", "int64", "GPUs that serve the model together"),
        Column("context_tokens", "int64", "tokens of each request"),
        Column("kv_bits", "int64", "bits of a cached key or value; below 16 each vector of a head has a 16-bit scale"),
        Column("kv_bytes_per_token", "int64", "bytes that a token adds to the cache while no window is full"),
        Column("kv_bytes_per_request", "int64", "bytes of the cache of one request, copies on other GPUs not counted"),
        Column("weights_bytes_per_gpu", "int64", "weights on the fullest GPU; null where refused", nullable=True),
        Column(
            "kv_bytes_per_request_per_gpu", "int64", "cache of one request there; null where refused", nullable=True
        ),
        Column("workspace_bytes_per_gpu", "int64", "activations there; null where refused", nullable=True),
        Column(
            "largest_batch",
            "int64",
            "requests that fit on all GPUs together, each counted once; null where refused",
            nullable=True,
        ),
        Column("shortfall_gib", "float64", "GiB that the fullest GPU lacks for one request; 0 where one fits", True),
        Column("replicated", "string", "what GPUs hold whole instead of sharing it; null where nothing is", True),
        Column("refused", "string", "why the model can't be split like this", nullable=True),
    ),
    key=("model", "gpu", "parallel", "gpus", "context_tokens", "kv_bits"),
)

INTENSITY = Table(
    path="capacity/intensity.parquet",
    meaning="Operations per byte of one layer's attention under every way to count, and of a whole layer.",
    columns=(
        _MODEL,
        Column(
            "kind",
            "string",
            "matmul-only and with-softmax: one head as two studies count it; standard: all heads, causal and grouped; "
            "flash: the same with the traffic of FlashAttention; layer: that with projections and MLP",
        ),
        Column("phase", "string", "prefill: the whole context at once; decode: its last token"),
        Column("context_tokens", "int64", "tokens of each request"),
        Column("batch", "int64", "requests at once"),
        Column("kv_bits", "int64", "bits of a cached key or value"),
        Column("flops", "float64", "operations, a multiply-add counted as two"),
        Column("bytes", "float64", "bytes moved to and from memory"),
        Column("intensity", "float64", "operations per byte"),
    ),
    key=("model", "kind", "phase", "context_tokens", "batch", "kv_bits"),
)

RIDGES = Table(
    path="capacity/ridges.parquet",
    meaning="What makers state of GPUs, and the intensity at which arithmetic takes over from memory as the limit.",
    columns=(
        Column("gpu", "string", "GPU of the catalogue"),
        Column("dtype", "string", "dtype of the operations"),
        Column("name", "string", "what the maker calls it"),
        Column("source", "string", "where the figures stand"),
        Column("memory_gib", "float64", "memory, with the GB of data sheets taken as GiB"),
        Column("bandwidth_gb_per_s", "float64", "memory bandwidth in 10^9 bytes a second"),
        Column("peak_tera_per_s", "float64", "dense operations in 10^12 a second"),
        Column("ridge", "float64", "peak over bandwidth: operations per byte"),
    ),
    key=("gpu", "dtype"),
)

STUDIES = Table(
    path="capacity/studies.parquet",
    meaning="What two studies printed, the same by their own assumptions, and the exact answer.",
    columns=(
        Column("place", "int64", "order, from 0"),
        Column("study", "string", "number of the study"),
        Column("convention", "string", "name of its assumptions"),
        Column("quantity", "string", "what is counted, with its unit"),
        Column("printed", "string", "as the study prints it"),
        Column("reproduced", "float64", "by the study's assumptions"),
        Column("exact", "float64", "without them; null where there is no such thing", nullable=True),
        Column("reason", "string", "why the two differ, or don't"),
    ),
    key=("place",),
)

STORED = Table(
    path="capacity/stored.parquet",
    meaning="Bytes of the study's models under its schemes: predicted from the configuration, and measured.",
    columns=(
        Column("model", "string", "model name in the configuration"),
        Column("scheme", "string", "scheme name in the configuration"),
        Column("predicted_bytes", "int64", "bytes of all parameters; null where not predicted", nullable=True),
        Column("measured_bytes", "int64", "bytes of all parameters and buffers; null where skipped", nullable=True),
        Column("difference_bytes", "int64", "measured less predicted", nullable=True),
        Column("reason", "string", "why there is no prediction or no measurement", nullable=True),
    ),
    key=("model", "scheme"),
)

MACHINE_SAMPLES = Table(
    path="capacity/machine_samples.parquet",
    meaning="The raw samples of how fast this machine multiplies, reads and copies.",
    columns=(
        Column(
            "what",
            "string",
            "multiply: product of two square matrices; read: of a matrix and a vector; copy: of one tensor to another",
        ),
        Column("dtype", "string", "dtype of the values"),
        Column(
            "work",
            "float64",
            "operations of a product, bytes of the matrix that is read, or bytes read and written by a copy; null "
            "where nothing was measured",
            nullable=True,
        ),
        Column("kernel", "string", "integer kernel that multiplies; null for float", nullable=True),
        *SAMPLE_OR_REASON,
        Column("device", "string", "cpu or cuda"),
        Column("device_name", "string", "what the maker calls the device"),
        Column("torch_threads", "int64", "threads that torch computes with"),
    ),
    key=("what", "dtype", "repetition"),
)

MACHINE = Table(
    path="machine.parquet",
    meaning="This machine in one row: what it is, and its measured peaks, which are the roofs of what models reach.",
    columns=(
        *MACHINE_COLUMNS,
        Column("float32_giga_per_s", "float64", "10^9 operations a second in products of float32 matrices"),
        Column("bfloat16_giga_per_s", "float64", "the same in bfloat16"),
        Column("int8_giga_per_s", "float64", "the same in 8-bit integers; null without a kernel", nullable=True),
        Column("int8_kernel", "string", "the kernel that multiplies them; null where there is no exact one", True),
        Column("read_gb_per_s", "float64", "10^9 bytes a second of a matrix that is multiplied with a vector"),
        Column("copy_gb_per_s", "float64", "10^9 bytes a second that a copy reads and writes"),
        Column("bandwidth_gb_per_s", "float64", "the larger of the two: the roof"),
        Column("samples", "int64", "samples of all these"),
        Column("contaminated", "int64", "how many of them are contaminated by other work"),
        Column("contaminated_taken", "int64", "how many of those the rates are of, for want of clean ones"),
    ),
    key=("device",),
)
