# Caches of keys and values on few bits: what they take, what they cost, and who gets the bits.


rule compare_caches:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['kv_cache']['corpus']}.parquet",
        questions=expand(
            "results/sources/questions/{question_set}.parquet",
            question_set=config["kv_cache"]["choices"]["question_sets"],
        ),
    output:
        perplexity=expand(
            "results/{model}/kv_cache/{policy}/perplexity.parquet",
            policy=CACHE_POLICIES,
            allow_missing=True,
        ),
        choices=expand(
            "results/{model}/kv_cache/{policy}/choices.parquet",
            policy=CACHE_POLICIES,
            allow_missing=True,
        ),
        latency=expand(
            "results/{model}/kv_cache/{policy}/latency.parquet",
            policy=CACHE_POLICIES,
            allow_missing=True,
        ),
        memory=expand(
            "results/{model}/kv_cache/{policy}/memory.parquet",
            policy=CACHE_POLICIES,
            allow_missing=True,
        ),
        run="results/{model}/kv_cache/run.parquet",
    log:
        "results/logs/compare_caches/{model}.log",
    benchmark:
        "results/benchmarks/compare_caches/{model}.tsv"
    threads: workflow.cores
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(8000),
        runtime=480,
    params:
        policies=cache_policies(CACHE_POLICIES),
        schemes={
            scheme: config["schemes"][scheme]
            for scheme in config["kv_cache"]["schemes"]
        },
        settings={
            key: value
            for key, value in config["kv_cache"].items()
            if key not in ("policies", "trace")
        },
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("compare_caches.py"),
    script:
        "../workflow/scripts/compare_caches.py"


rule trace_caches:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
    output:
        expand(
            "results/{model}/kv_cache/{policy}/trace.parquet",
            policy=CHOOSING_POLICIES,
            allow_missing=True,
        ),
    log:
        "results/logs/trace_caches/{model}.log",
    benchmark:
        "results/benchmarks/trace_caches/{model}.tsv"
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(6000),
        runtime=60,
    params:
        policies=cache_policies(CHOOSING_POLICIES),
        settings=config["kv_cache"]["trace"],
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("trace_caches.py"),
    script:
        "../workflow/scripts/trace_caches.py"


rule summarize_kv_cache:
    input:
        perplexity=of_every_cell("perplexity"),
        choices=of_every_cell("choices"),
        latency=of_every_cell("latency"),
        memory=of_every_cell("memory"),
    output:
        table="results/summary/kv_cache.parquet",
        csv=report(
            "results/summary/kv_cache.csv",
            category="KV caches",
            labels={"table": "What every policy costs and takes"},
            caption="../report/captions/cache_accuracy.rst",
        ),
        lengths="results/summary/kv_cache_lengths.parquet",
        pairs="results/summary/kv_cache_pairs.parquet",
        pairs_csv=report(
            "results/summary/kv_cache_pairs.csv",
            category="KV caches",
            labels={"table": "Policies against each other at the same bits"},
            caption="../report/captions/cache_accuracy.rst",
        ),
    log:
        "results/logs/summarize_kv_cache.log",
    benchmark:
        "results/benchmarks/summarize_kv_cache.tsv"
    params:
        cells=CACHE_CELLS,
        policies=cache_policies(CACHE_POLICIES),
        code=code("summarize_kv_cache.py"),
    script:
        "../workflow/scripts/summarize_kv_cache.py"


rule plot_cache_accuracy:
    input:
        table="results/summary/kv_cache.parquet",
        pairs="results/summary/kv_cache_pairs.parquet",
    output:
        report(
            "results/{model}/kv_cache/accuracy.svg",
            category="KV caches",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "What few bits cost"},
            caption="../report/captions/cache_accuracy.rst",
        ),
    log:
        "results/logs/plot_cache_accuracy/{model}.log",
    benchmark:
        "results/benchmarks/plot_cache_accuracy/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_cache_accuracy.py"),
    script:
        "../workflow/scripts/plot_cache_accuracy.py"


rule plot_cache_bytes:
    input:
        table="results/summary/kv_cache.parquet",
        lengths="results/summary/kv_cache_lengths.parquet",
    output:
        report(
            "results/{model}/kv_cache/bytes.svg",
            category="KV caches",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Bytes by length"},
            caption="../report/captions/cache_bytes.rst",
        ),
    log:
        "results/logs/plot_cache_bytes/{model}.log",
    benchmark:
        "results/benchmarks/plot_cache_bytes/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_cache_bytes.py"),
    script:
        "../workflow/scripts/plot_cache_bytes.py"


rule plot_cache_bits:
    input:
        trace=expand(
            "results/{model}/kv_cache/{policy}/trace.parquet",
            policy=CHOOSING_POLICIES,
            allow_missing=True,
        ),
    output:
        report(
            "results/{model}/kv_cache/bits.svg",
            category="KV caches",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Who gets the bits"},
            caption="../report/captions/cache_bits.rst",
        ),
    log:
        "results/logs/plot_cache_bits/{model}.log",
    benchmark:
        "results/benchmarks/plot_cache_bits/{model}.tsv"
    params:
        cells=lambda wildcards: [
            [wildcards.model, policy] for policy in CHOOSING_POLICIES
        ],
        policies=cache_policies(CHOOSING_POLICIES),
        dpi=config["figures"]["dpi"],
        code=code("plot_cache_bits.py"),
    script:
        "../workflow/scripts/plot_cache_bits.py"


rule kv_cache:
    input:
        every(rules.compare_caches.output, model=MEASURED),
        every(rules.trace_caches.output, model=MEASURED),
        rules.summarize_kv_cache.output,
        every(rules.plot_cache_accuracy.output, model=MEASURED),
        every(rules.plot_cache_bytes.output, model=MEASURED),
        every(rules.plot_cache_bits.output, model=MEASURED),
