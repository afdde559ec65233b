# Caches of keys and values on few bits: what they take, what they cost, and who gets the bits.


def cache_settings(wildcards):
    """What caches are compared on, without the policies themselves."""
    left_out = ("policies", "trace")
    return {
        key: value for key, value in config["kv_cache"].items() if key not in left_out
    }


def cache_policies(names):
    """Policies by their names, in the order in which their files are written."""
    return {name: config["kv_cache"]["policies"][name] for name in names}


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
        gpu=1,
        mem_mb=8000,
        runtime=480,
    params:
        policies=cache_policies(CACHE_POLICIES),
        schemes={
            scheme: config["schemes"][scheme]
            for scheme in config["kv_cache"]["schemes"]
        },
        settings=cache_settings,
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
        gpu=1,
        mem_mb=6000,
        runtime=60,
    params:
        policies=cache_policies(CHOOSING_POLICIES),
        settings=config["kv_cache"]["trace"],
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("trace_caches.py"),
    script:
        "../workflow/scripts/trace_caches.py"


rule kv_cache:
    input:
        expand(rules.compare_caches.output, model=MEASURED),
        expand(rules.trace_caches.output, model=MEASURED),
