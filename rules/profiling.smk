# How long models take and how much memory they need. Each job is a process of its own and has the machine to itself.


rule profile_latency:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
    output:
        table="results/{model}/profiling/latency.parquet",
        run="results/{model}/profiling/latency-run.parquet",
    log:
        "results/logs/profile_latency/{model}.log",
    benchmark:
        "results/benchmarks/profile_latency/{model}.tsv"
    threads: workflow.cores
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(8000),
        runtime=240,
    params:
        subjects=what_is_profiled,
        settings=profiling_settings("latency"),
        device=config["device"],
        code=code("profile_latency.py"),
    script:
        "../workflow/scripts/profile_latency.py"


rule profile_memory:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
    output:
        table="results/{model}/profiling/memory.parquet",
        run="results/{model}/profiling/memory-run.parquet",
    log:
        "results/logs/profile_memory/{model}.log",
    benchmark:
        "results/benchmarks/profile_memory/{model}.tsv"
    threads: workflow.cores
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(8000),
        runtime=240,
    params:
        reference=REFERENCE,
        settings=profiling_settings("memory"),
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("profile_memory.py"),
    script:
        "../workflow/scripts/profile_memory.py"


rule profile_cache:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
    output:
        table="results/{model}/profiling/cache.parquet",
        checks="results/{model}/profiling/cache_checks.parquet",
        run="results/{model}/profiling/cache-run.parquet",
    log:
        "results/logs/profile_cache/{model}.log",
    benchmark:
        "results/benchmarks/profile_cache/{model}.tsv"
    threads: workflow.cores
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(8000),
        runtime=240,
    params:
        settings=profiling_settings("cache"),
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("profile_cache.py"),
    script:
        "../workflow/scripts/profile_cache.py"


rule profile_kernels:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
    output:
        "results/{model}/profiling/kernels.parquet",
    log:
        "results/logs/profile_kernels/{model}.log",
    benchmark:
        "results/benchmarks/profile_kernels/{model}.tsv"
    threads: workflow.cores
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(8000),
        runtime=60,
    params:
        settings=profiling_settings("kernels"),
        device=config["device"],
        code=code("profile_kernels.py"),
    script:
        "../workflow/scripts/profile_kernels.py"


rule profile_baseline:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
    output:
        table="results/{model}/profiling/baseline.parquet",
        run="results/{model}/profiling/baseline-run.parquet",
    log:
        "results/logs/profile_baseline/{model}.log",
    benchmark:
        "results/benchmarks/profile_baseline/{model}.tsv"
    threads: workflow.cores
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(8000),
        runtime=120,
    params:
        settings=config["profiling"]["baseline"],
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("profile_baseline.py"),
    script:
        "../workflow/scripts/profile_baseline.py"


rule summarize_profiling:
    input:
        machine="results/machine.parquet",
        checkpoints=ancient(expand("results/{model}/sources/checkpoint", model=MODELS)),
        latency=expand("results/{model}/profiling/latency.parquet", model=MODELS),
        memory=expand("results/{model}/profiling/memory.parquet", model=MODELS),
        cache=expand("results/{model}/profiling/cache.parquet", model=MEASURED),
        kernels=expand("results/{model}/profiling/kernels.parquet", model=MEASURED),
    output:
        profile="results/summary/profiling.parquet",
        profile_csv=report(
            "results/summary/profiling.csv",
            category="Profiling",
            labels={"table": "Latency of every cell, beside the roofline"},
            caption="../report/captions/latency.rst",
        ),
        knees="results/summary/knees.parquet",
        slopes="results/summary/memory.parquet",
        slopes_csv=report(
            "results/summary/memory.csv",
            category="Profiling",
            labels={"table": "Memory by written tokens"},
            caption="../report/captions/memory.rst",
        ),
        cache="results/summary/cache.parquet",
        kernels="results/summary/kernels.parquet",
    log:
        "results/logs/summarize_profiling.log",
    benchmark:
        "results/benchmarks/summarize_profiling.tsv"
    params:
        models=MODELS,
        measured=MEASURED,
        schemes={
            scheme: config["schemes"][scheme]
            for scheme in dict.fromkeys([REFERENCE, *config["profiling"]["schemes"]])
        },
        layers={
            model: config["models"][model].get("config", {}).get("num_hidden_layers")
            for model in MODELS
        },
        code=code("summarize_profiling.py"),
    script:
        "../workflow/scripts/summarize_profiling.py"


rule plot_latency:
    input:
        profile="results/summary/profiling.parquet",
        knees="results/summary/knees.parquet",
    output:
        report(
            "results/{model}/profiling/latency.svg",
            category="Profiling",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Latency by length of the prompt"},
            caption="../report/captions/latency.rst",
        ),
    log:
        "results/logs/plot_latency/{model}.log",
    benchmark:
        "results/benchmarks/plot_latency/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_latency.py"),
    script:
        "../workflow/scripts/plot_latency.py"


rule plot_memory:
    input:
        memory="results/{model}/profiling/memory.parquet",
        slopes="results/summary/memory.parquet",
    output:
        report(
            "results/{model}/profiling/memory.svg",
            category="Profiling",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Memory by written tokens"},
            caption="../report/captions/memory.rst",
        ),
    log:
        "results/logs/plot_memory/{model}.log",
    benchmark:
        "results/benchmarks/plot_memory/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_memory.py"),
    script:
        "../workflow/scripts/plot_memory.py"


rule plot_cache_speed:
    input:
        "results/summary/cache.parquet",
    output:
        report(
            "results/{model}/profiling/cache.svg",
            category="Profiling",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "What the KV cache gains"},
            caption="../report/captions/cache_speed.rst",
        ),
    log:
        "results/logs/plot_cache_speed/{model}.log",
    benchmark:
        "results/benchmarks/plot_cache_speed/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_cache_speed.py"),
    script:
        "../workflow/scripts/plot_cache_speed.py"


rule plot_kernels:
    input:
        "results/summary/kernels.parquet",
    output:
        report(
            "results/{model}/profiling/kernels.svg",
            category="Profiling",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Attention kernels"},
            caption="../report/captions/kernels.rst",
        ),
    log:
        "results/logs/plot_kernels/{model}.log",
    benchmark:
        "results/benchmarks/plot_kernels/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_kernels.py"),
    script:
        "../workflow/scripts/plot_kernels.py"


rule plot_baseline:
    input:
        "results/{model}/profiling/baseline.parquet",
    output:
        report(
            "results/{model}/profiling/baseline.svg",
            category="Profiling",
            subcategory="{model}",
            labels={
                "model": "{model}",
                "figure": "Prompts and how fast they are answered",
            },
            caption="../report/captions/baseline.rst",
        ),
    log:
        "results/logs/plot_baseline/{model}.log",
    benchmark:
        "results/benchmarks/plot_baseline/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_baseline.py"),
    script:
        "../workflow/scripts/plot_baseline.py"


rule plot_roofline:
    input:
        profile="results/summary/profiling.parquet",
        machine="results/machine.parquet",
    output:
        report(
            "results/summary/roofline.svg",
            category="Profiling",
            labels={"figure": "Roofline"},
            caption="../report/captions/roofline.rst",
        ),
    log:
        "results/logs/plot_roofline.log",
    benchmark:
        "results/benchmarks/plot_roofline.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_roofline.py"),
    script:
        "../workflow/scripts/plot_roofline.py"


rule profiling:
    input:
        every(rules.profile_latency.output, model=MODELS),
        every(rules.profile_memory.output, model=MODELS),
        every(rules.profile_cache.output, model=MEASURED),
        every(rules.profile_kernels.output, model=MEASURED),
        every(rules.profile_baseline.output, model=MEASURED),
        rules.summarize_profiling.output,
        every(rules.plot_latency.output, model=MODELS),
        every(rules.plot_memory.output, model=MODELS),
        every(rules.plot_cache_speed.output, model=MEASURED),
        every(rules.plot_kernels.output, model=MEASURED),
        every(rules.plot_baseline.output, model=MEASURED),
        rules.plot_roofline.output,
