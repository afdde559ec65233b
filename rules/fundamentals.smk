# The two small teaching experiments: a digit classifier on few bits, and a decoder written by hand with its cache.


rule quantize_digits:
    input:
        f"results/sources/images/{config['fundamentals']['digits']['image_set']}.safetensors",
    output:
        table="results/fundamentals/digits.parquet",
        run="results/fundamentals/digits-run.parquet",
    log:
        "results/logs/quantize_digits.log",
    benchmark:
        "results/benchmarks/quantize_digits.tsv"
    resources:
        gpu=GPUS,
    params:
        settings=config["fundamentals"]["digits"],
        device=config["device"],
        code=code("quantize_digits.py"),
    script:
        "../workflow/scripts/quantize_digits.py"


rule check_decoder:
    output:
        "results/fundamentals/decoder_checks.parquet",
    log:
        "results/logs/check_decoder.log",
    benchmark:
        "results/benchmarks/check_decoder.tsv"
    resources:
        gpu=GPUS,
    params:
        device=config["device"],
        code=code("check_decoder.py"),
    script:
        "../workflow/scripts/check_decoder.py"


# Times are measured, so nothing else may run meanwhile.
rule time_decoder:
    output:
        table="results/fundamentals/decoder_latency.parquet",
        run="results/fundamentals/decoder-run.parquet",
    log:
        "results/logs/time_decoder.log",
    benchmark:
        "results/benchmarks/time_decoder.tsv"
    threads: workflow.cores
    resources:
        gpu=GPUS,
    params:
        settings=config["fundamentals"]["decoder"],
        device=config["device"],
        code=code("time_decoder.py"),
    script:
        "../workflow/scripts/time_decoder.py"


rule summarize_fundamentals:
    input:
        digits="results/fundamentals/digits.parquet",
        latency="results/fundamentals/decoder_latency.parquet",
    output:
        digits="results/summary/digits.parquet",
        digits_csv=report(
            "results/summary/digits.csv",
            category="Fundamentals",
            labels={"table": "Digit classifier: accuracy by bits"},
            caption="../report/captions/digits.rst",
        ),
        decoder="results/summary/decoder.parquet",
        decoder_csv=report(
            "results/summary/decoder.csv",
            category="Fundamentals",
            labels={"table": "Hand-written decoder: latency with and without cache"},
            caption="../report/captions/decoder.rst",
        ),
    log:
        "results/logs/summarize_fundamentals.log",
    benchmark:
        "results/benchmarks/summarize_fundamentals.tsv"
    params:
        code=code("summarize_fundamentals.py"),
    script:
        "../workflow/scripts/summarize_fundamentals.py"


rule plot_digits:
    input:
        "results/summary/digits.parquet",
    output:
        report(
            "results/fundamentals/digits.svg",
            category="Fundamentals",
            labels={"figure": "Digit classifier: accuracy by bits"},
            caption="../report/captions/digits.rst",
        ),
    log:
        "results/logs/plot_digits.log",
    benchmark:
        "results/benchmarks/plot_digits.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_digits.py"),
    script:
        "../workflow/scripts/plot_digits.py"


rule plot_decoder:
    input:
        "results/summary/decoder.parquet",
    output:
        report(
            "results/fundamentals/decoder.svg",
            category="Fundamentals",
            labels={"figure": "Hand-written decoder: latency by length"},
            caption="../report/captions/decoder.rst",
        ),
    log:
        "results/logs/plot_decoder.log",
    benchmark:
        "results/benchmarks/plot_decoder.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_decoder.py"),
    script:
        "../workflow/scripts/plot_decoder.py"


rule fundamentals:
    input:
        rules.quantize_digits.output,
        rules.check_decoder.output,
        rules.time_decoder.output,
        rules.summarize_fundamentals.output,
        rules.plot_digits.output,
        rules.plot_decoder.output,
