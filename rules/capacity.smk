# What theory predicts from a configuration alone, beside what was measured.


rule predict_capacity:
    input:
        manifests=expand("results/{model}/sources/model.json", model=MODELS),
        checkpoints=ancient(expand("results/{model}/sources/checkpoint", model=MODELS)),
    output:
        parameters="results/capacity/parameters.parquet",
        weights="results/capacity/weights.parquet",
        requests="results/capacity/requests.parquet",
        intensity="results/capacity/intensity.parquet",
        ridges="results/capacity/ridges.parquet",
        studies="results/capacity/studies.parquet",
    log:
        "results/logs/predict_capacity.log",
    benchmark:
        "results/benchmarks/predict_capacity.tsv"
    params:
        models=MODELS,
        settings=config["capacity"],
        code=code("predict_capacity.py", "inferometer/capacity/*.yaml"),
    script:
        "../workflow/scripts/predict_capacity.py"


rule compare_bytes:
    input:
        manifests=expand("results/{model}/sources/model.json", model=MEASURED),
        checkpoints=ancient(
            expand("results/{model}/sources/checkpoint", model=MEASURED)
        ),
        storage=[
            f"results/{model}/evaluation/{scheme}/storage.parquet"
            for model, scheme in CELLS
        ],
    output:
        "results/capacity/stored.parquet",
    log:
        "results/logs/compare_bytes.log",
    benchmark:
        "results/benchmarks/compare_bytes.tsv"
    params:
        cells=CELLS,
        dtypes={
            model: config["models"][model].get("dtype", "auto") for model in MEASURED
        },
        schemes={
            scheme: {
                key: value
                for key, value in config["schemes"][scheme].items()
                if key in ("weights", "keep", "rotation")
            }
            for scheme in SCHEMES
        },
        code=code("compare_bytes.py"),
    script:
        "../workflow/scripts/compare_bytes.py"


rule measure_machine:
    output:
        samples="results/capacity/machine_samples.parquet",
        machine="results/machine.parquet",
    log:
        "results/logs/measure_machine.log",
    benchmark:
        "results/benchmarks/measure_machine.tsv"
    threads: workflow.cores  # nothing else may run beside it
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(4000),
    params:
        device=config["device"],
        code=code("measure_machine.py"),
    script:
        "../workflow/scripts/measure_machine.py"


rule plot_batches:
    input:
        "results/capacity/requests.parquet",
    output:
        report(
            "results/capacity/batches.svg",
            category="Capacity",
            labels={"figure": "Largest batches by context, cache and GPUs"},
            caption="../report/captions/batches.rst",
        ),
    log:
        "results/logs/plot_batches.log",
    benchmark:
        "results/benchmarks/plot_batches.tsv"
    params:
        model=config["capacity"]["models"][0],
        gpu=config["capacity"]["gpus"][0],
        dpi=config["figures"]["dpi"],
        code=code("plot_batches.py"),
    script:
        "../workflow/scripts/plot_batches.py"


rule plot_cache:
    input:
        "results/capacity/requests.parquet",
    output:
        report(
            "results/capacity/cache.svg",
            category="Capacity",
            labels={"figure": "Bytes of the KV cache by context"},
            caption="../report/captions/cache.rst",
        ),
    log:
        "results/logs/plot_cache.log",
    benchmark:
        "results/benchmarks/plot_cache.tsv"
    params:
        model=config["capacity"]["models"][0],
        dpi=config["figures"]["dpi"],
        code=code("plot_cache.py"),
    script:
        "../workflow/scripts/plot_cache.py"


rule plot_intensity:
    input:
        intensity="results/capacity/intensity.parquet",
        ridges="results/capacity/ridges.parquet",
        machine="results/machine.parquet",
    output:
        report(
            "results/capacity/intensity.svg",
            category="Capacity",
            labels={"figure": "Arithmetic intensity and ridge points"},
            caption="../report/captions/intensity.rst",
        ),
    log:
        "results/logs/plot_intensity.log",
    benchmark:
        "results/benchmarks/plot_intensity.tsv"
    params:
        model=config["capacity"]["models"][0],
        gpus=config["capacity"]["gpus"],
        dpi=config["figures"]["dpi"],
        code=code("plot_intensity.py"),
    script:
        "../workflow/scripts/plot_intensity.py"


rule capacity:
    input:
        rules.predict_capacity.output,
        of_chapter("evaluation", rules.compare_bytes.output),
        rules.measure_machine.output,
        rules.plot_batches.output,
        rules.plot_cache.output,
        rules.plot_intensity.output,
