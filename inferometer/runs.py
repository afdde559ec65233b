"""What measuring jobs run on, and their table: how long each part took, how much memory it needed.

These rows differ from run to run, so they stand apart from the byte-stable results.
"""

from dataclasses import dataclass

from inferometer.tables import Column, Table

MACHINE_COLUMNS = (
    Column("device", "string", "cpu or cuda"),
    Column("device_name", "string", "what the maker calls the device"),
    Column(
        "features",
        "string",
        "instruction sets that matter for products, or the compute capability of a GPU; empty where none are known",
    ),
    Column("cores", "int64", "processor cores that the process may use"),
    Column("torch_threads", "int64", "threads that torch computes with"),
    Column("memory_gib", "float64", "main memory of the host in GiB"),
    Column("system", "string", "operating system and processor architecture"),
    Column("python", "string", "version of Python"),
    Column("torch", "string", "version of torch"),
    Column("transformers", "string", "version of transformers"),
)


@dataclass(frozen=True)
class Machine:
    """What a measurement ran on: the columns MACHINE_COLUMNS."""

    device: str
    device_name: str
    features: str
    cores: int
    torch_threads: int
    memory_gib: float
    system: str
    python: str
    torch: str
    transformers: str


RUN = Table(
    path="<model>/<chapter>/[<scheme>/]run.parquet",
    meaning="One measuring job: its machine, time and memory.",
    columns=(
        Column("step", "string", "rule that measured"),
        Column("model", "string", "model name in the configuration"),
        Column("scheme", "string", "scheme name, where the step has one", nullable=True),
        Column("tokens", "int64", "tokens that went through the model"),
        Column("startup_s", "float64", "seconds from process start to the first line of the script's work"),
        Column("load_s", "float64", "seconds to read tokenizer, text and weights"),
        Column("compute_s", "float64", "seconds of model arithmetic and statistics"),
        Column("forward_s", "float64", "seconds of the forward passes over these tokens, where timed", nullable=True),
        Column("weights_bytes", "int64", "exact bytes of the float model's parameters and buffers"),
        Column(
            "peak_memory_bytes",
            "int64",
            "peak memory while computing: of the process on a CPU, of torch on CUDA",
        ),
        *MACHINE_COLUMNS,
        Column("dtype", "string", "dtype of the float parts of the model"),
    ),
    key=("step", "model", "scheme"),
)
