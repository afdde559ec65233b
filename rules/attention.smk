# What models attend to, and what they lose when the tokens that all attend to are evicted.


rule evict_sinks:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['attention']['eviction']['corpus']}.parquet",
    output:
        eviction="results/{model}/attention/eviction.parquet",
        run="results/{model}/attention/eviction-run.parquet",
    log:
        "results/logs/evict_sinks/{model}.log",
    benchmark:
        "results/benchmarks/evict_sinks/{model}.tsv"
    resources:
        gpu=1,
        mem_mb=6000,
        runtime=120,
    params:
        settings=config["attention"]["eviction"],
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("evict_sinks.py"),
    script:
        "../workflow/scripts/evict_sinks.py"


rule summarize_eviction:
    input:
        expand("results/{model}/attention/eviction.parquet", model=MEASURED),
    output:
        evicted="results/summary/eviction.parquet",
        evicted_csv=report(
            "results/summary/eviction.csv",
            category="Attention",
            labels={"table": "Perplexity by what the cache keeps"},
            caption="../report/captions/eviction.rst",
        ),
    log:
        "results/logs/summarize_eviction.log",
    benchmark:
        "results/benchmarks/summarize_eviction.tsv"
    params:
        models=MEASURED,
        code=code("summarize_eviction.py"),
    script:
        "../workflow/scripts/summarize_eviction.py"


rule plot_eviction:
    input:
        evicted="results/summary/eviction.parquet",
        eviction="results/{model}/attention/eviction.parquet",
    output:
        report(
            "results/{model}/attention/eviction.svg",
            category="Attention",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Sinks evicted from the cache"},
            caption="../report/captions/eviction.rst",
        ),
    log:
        "results/logs/plot_eviction/{model}.log",
    benchmark:
        "results/benchmarks/plot_eviction/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_eviction.py"),
    script:
        "../workflow/scripts/plot_eviction.py"


rule attention:
    input:
        expand(rules.evict_sinks.output, model=MEASURED),
        rules.summarize_eviction.output,
        expand(rules.plot_eviction.output, model=MEASURED),
