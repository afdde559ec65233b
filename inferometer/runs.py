"""The table of measuring jobs: on what each ran, how long each part took, how much memory it needed.

These rows differ from run to run, so they stand apart from the byte-stable results.
"""

from inferometer.tables import Column, Table

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
        Column("device", "string", "cpu or cuda"),
        Column("device_name", "string", "what the maker calls the device"),
        Column("dtype", "string", "dtype of the float parts of the model"),
        Column("cores", "int64", "processor cores that the process may use"),
        Column("torch_threads", "int64", "threads that torch computes with"),
        Column("memory_gib", "float64", "main memory of the host in GiB"),
        Column("system", "string", "operating system and processor architecture"),
        Column("python", "string", "version of Python"),
        Column("torch", "string", "version of torch"),
        Column("transformers", "string", "version of transformers"),
    ),
    key=("step", "model", "scheme"),
)
