# What the models attend to: maps, attention sinks, what rounding does to them, and what is lost with them.


rule capture_attention:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpora=expand(
            "results/sources/corpora/{corpus}.parquet",
            corpus=config["attention"]["inputs"]["corpora"],
        ),
        questions=expand(
            "results/sources/questions/{question_set}.parquet",
            question_set=config["attention"]["inputs"]["question_sets"],
        ),
    output:
        heads="results/{model}/attention/heads.parquet",
        positions="results/{model}/attention/positions.parquet",
        maps="results/{model}/attention/maps.parquet",
        residuals="results/{model}/attention/residuals.parquet",
        run="results/{model}/attention/run.parquet",
    log:
        "results/logs/capture_attention/{model}.log",
    benchmark:
        "results/benchmarks/capture_attention/{model}.tsv"
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(6000),
        runtime=120,
    params:
        inputs=config["attention"]["inputs"],
        first_token=config["attention"]["first_token"],
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("capture_attention.py"),
    script:
        "../workflow/scripts/capture_attention.py"


rule compare_attention:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['attention']['rounding']['corpus']}.parquet",
    output:
        rounded="results/{model}/attention/rounded.parquet",
        run="results/{model}/attention/rounded-run.parquet",
    log:
        "results/logs/compare_attention/{model}.log",
    benchmark:
        "results/benchmarks/compare_attention/{model}.tsv"
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(6000),
        runtime=120,
    params:
        settings=config["attention"]["rounding"],
        schemes={
            name: config["schemes"][name]
            for name in config["attention"]["rounding"]["schemes"]
        },
        policies=cache_policies(config["attention"]["rounding"]["policies"]),
        reference=REFERENCE,
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("compare_attention.py"),
    script:
        "../workflow/scripts/compare_attention.py"


rule summarize_attention:
    input:
        heads=expand("results/{model}/attention/heads.parquet", model=MEASURED),
        rounded=expand("results/{model}/attention/rounded.parquet", model=MEASURED),
    output:
        sinks="results/summary/sinks.parquet",
        sinks_csv=report(
            "results/summary/sinks.csv",
            category="Attention",
            labels={"table": "Share on the first two tokens by layer"},
            caption="../report/captions/sinks.rst",
        ),
        phases="results/summary/phases.parquet",
        phases_csv=report(
            "results/summary/phases.csv",
            category="Attention",
            labels={"table": "Phases of the attention sink"},
            caption="../report/captions/phases.rst",
        ),
        schemes="results/summary/attention_schemes.parquet",
        schemes_csv=report(
            "results/summary/attention_schemes.csv",
            category="Attention",
            labels={"table": "Sinks and entropies under rounding"},
            caption="../report/captions/attention_schemes.rst",
        ),
    log:
        "results/logs/summarize_attention.log",
    benchmark:
        "results/benchmarks/summarize_attention.tsv"
    params:
        models=MEASURED,
        reference=REFERENCE,
        code=code("summarize_attention.py"),
    script:
        "../workflow/scripts/summarize_attention.py"


rule plot_maps:
    input:
        "results/{model}/attention/maps.parquet",
    output:
        report(
            "results/{model}/attention/maps-{text}.svg",
            category="Attention",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Attention maps: {text}"},
            caption="../report/captions/maps.rst",
        ),
    log:
        "results/logs/plot_maps/{model}/{text}.log",
    benchmark:
        "results/benchmarks/plot_maps/{model}/{text}.tsv"
    params:
        lengths=list(config["attention"]["inputs"]["lengths"]),
        dpi=config["figures"]["dpi"],
        code=code("plot_maps.py"),
    script:
        "../workflow/scripts/plot_maps.py"


rule plot_sinks:
    input:
        sinks="results/summary/sinks.parquet",
        phases="results/summary/phases.parquet",
    output:
        report(
            "results/{model}/attention/sinks.svg",
            category="Attention",
            subcategory="{model}",
            labels={
                "model": "{model}",
                "figure": "Share on the first two tokens by layer",
            },
            caption="../report/captions/sinks.rst",
        ),
    log:
        "results/logs/plot_sinks/{model}.log",
    benchmark:
        "results/benchmarks/plot_sinks/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_sinks.py"),
    script:
        "../workflow/scripts/plot_sinks.py"


rule plot_heads:
    input:
        "results/{model}/attention/heads.parquet",
    output:
        report(
            "results/{model}/attention/heads.svg",
            category="Attention",
            subcategory="{model}",
            labels={
                "model": "{model}",
                "figure": "Share on the first two tokens by layer and head",
            },
            caption="../report/captions/sink_heads.rst",
        ),
    log:
        "results/logs/plot_heads/{model}.log",
    benchmark:
        "results/benchmarks/plot_heads/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_heads.py"),
    script:
        "../workflow/scripts/plot_heads.py"


rule plot_first_tokens:
    input:
        "results/summary/sinks.parquet",
    output:
        report(
            "results/{model}/attention/first_tokens.svg",
            category="Attention",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Sinks by what a text begins with"},
            caption="../report/captions/first_tokens.rst",
        ),
    log:
        "results/logs/plot_first_tokens/{model}.log",
    benchmark:
        "results/benchmarks/plot_first_tokens/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_first_tokens.py"),
    script:
        "../workflow/scripts/plot_first_tokens.py"


rule plot_residuals:
    input:
        residuals="results/{model}/attention/residuals.parquet",
        sinks="results/summary/sinks.parquet",
    output:
        report(
            "results/{model}/attention/residuals.svg",
            category="Attention",
            subcategory="{model}",
            labels={
                "model": "{model}",
                "figure": "Massive activations at the first token",
            },
            caption="../report/captions/residuals.rst",
        ),
    log:
        "results/logs/plot_residuals/{model}.log",
    benchmark:
        "results/benchmarks/plot_residuals/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_residuals.py"),
    script:
        "../workflow/scripts/plot_residuals.py"


rule plot_attention_schemes:
    input:
        "results/summary/attention_schemes.parquet",
    output:
        report(
            "results/{model}/attention/schemes.svg",
            category="Attention",
            subcategory="{model}",
            labels={
                "model": "{model}",
                "figure": "Sinks and entropies under rounding",
            },
            caption="../report/captions/attention_schemes.rst",
        ),
    log:
        "results/logs/plot_attention_schemes/{model}.log",
    benchmark:
        "results/benchmarks/plot_attention_schemes/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_attention_schemes.py"),
    script:
        "../workflow/scripts/plot_attention_schemes.py"


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
        gpu=GPUS,
        mem_mb=memory_mb(6000),
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
        every(rules.capture_attention.output, model=MEASURED),
        every(rules.compare_attention.output, model=MEASURED),
        rules.summarize_attention.output,
        every(rules.evict_sinks.output, model=MEASURED),
        rules.summarize_eviction.output,
        expand(
            "results/{model}/attention/{figure}.svg",
            model=MEASURED,
            figure=ATTENTION_FIGURES,
        ),
