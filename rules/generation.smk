# What single tokens are to a model while it writes, and what a word does to it that does not belong.


rule trace_generation:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['generation']['insertions']['corpus']}.parquet",
    output:
        written="results/{model}/generation/written.parquet",
        features="results/{model}/generation/features.parquet",
        insertions="results/{model}/generation/insertions.parquet",
        run="results/{model}/generation/run.parquet",
    log:
        "results/logs/trace_generation/{model}.log",
    benchmark:
        "results/benchmarks/trace_generation/{model}.tsv"
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(6000),
        runtime=120,
    params:
        settings=without(config["generation"], "sampling"),
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("trace_generation.py"),
    script:
        "../workflow/scripts/trace_generation.py"


rule summarize_generation:
    input:
        features=expand("results/{model}/generation/features.parquet", model=MEASURED),
        insertions=expand(
            "results/{model}/generation/insertions.parquet", model=MEASURED
        ),
    output:
        logged="results/summary/generation.parquet",
        logged_csv=report(
            "results/summary/generation.csv",
            category="Generation",
            labels={"table": "Features of what was written, every 64 tokens"},
            caption="../report/captions/generation.rst",
        ),
        inserted="results/summary/insertions.parquet",
        inserted_csv=report(
            "results/summary/insertions.csv",
            category="Generation",
            labels={"table": "Rarity of inserted words"},
            caption="../report/captions/insertions.rst",
        ),
    log:
        "results/logs/summarize_generation.log",
    benchmark:
        "results/benchmarks/summarize_generation.tsv"
    params:
        models=MEASURED,
        code=code("summarize_generation.py"),
    script:
        "../workflow/scripts/summarize_generation.py"


rule sample_generations:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
    output:
        samples="results/{model}/generation/samples.parquet",
        run="results/{model}/generation/samples-run.parquet",
    log:
        "results/logs/sample_generations/{model}.log",
    benchmark:
        "results/benchmarks/sample_generations/{model}.tsv"
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(6000),
        runtime=120,
    params:
        prompts=SAMPLED_PROMPTS,
        sampling=without(config["generation"]["sampling"], "prompts"),
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("sample_generations.py"),
    script:
        "../workflow/scripts/sample_generations.py"


rule measure_diversity:
    input:
        "results/{model}/generation/samples.parquet",
    output:
        "results/{model}/generation/diversity.parquet",
    log:
        "results/logs/measure_diversity/{model}.log",
    benchmark:
        "results/benchmarks/measure_diversity/{model}.tsv"
    params:
        code=code("measure_diversity.py"),
    script:
        "../workflow/scripts/measure_diversity.py"


rule summarize_diversity:
    input:
        expand("results/{model}/generation/diversity.parquet", model=MEASURED),
    output:
        "results/summary/diversity.parquet",
        report(
            "results/summary/diversity.csv",
            category="Generation",
            labels={"table": "Diversity by temperature"},
            caption="../report/captions/diversity.rst",
        ),
    log:
        "results/logs/summarize_diversity.log",
    benchmark:
        "results/benchmarks/summarize_diversity.tsv"
    params:
        models=MEASURED,
        code=code("summarize_diversity.py"),
    script:
        "../workflow/scripts/summarize_diversity.py"


rule plot_generation:
    input:
        features="results/{model}/generation/features.parquet",
        written="results/{model}/generation/written.parquet",
    output:
        report(
            "results/{model}/generation/features.svg",
            category="Generation",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Entropy and rarity along the text"},
            caption="../report/captions/generation.rst",
        ),
    log:
        "results/logs/plot_generation/{model}.log",
    benchmark:
        "results/benchmarks/plot_generation/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_generation.py"),
    script:
        "../workflow/scripts/plot_generation.py"


rule plot_insertions:
    input:
        "results/summary/insertions.parquet",
    output:
        report(
            "results/{model}/generation/insertions.svg",
            category="Generation",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Rarity of inserted words"},
            caption="../report/captions/insertions.rst",
        ),
    log:
        "results/logs/plot_insertions/{model}.log",
    benchmark:
        "results/benchmarks/plot_insertions/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_insertions.py"),
    script:
        "../workflow/scripts/plot_insertions.py"


rule plot_diversity:
    input:
        "results/summary/diversity.parquet",
    output:
        report(
            "results/{model}/generation/diversity.svg",
            category="Generation",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Diversity by temperature"},
            caption="../report/captions/diversity.rst",
        ),
    log:
        "results/logs/plot_diversity/{model}.log",
    benchmark:
        "results/benchmarks/plot_diversity/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_diversity.py"),
    script:
        "../workflow/scripts/plot_diversity.py"


rule generation:
    input:
        every(rules.trace_generation.output, model=MEASURED),
        rules.summarize_generation.output,
        every(rules.plot_generation.output, model=MEASURED),
        every(rules.plot_insertions.output, model=MEASURED),
        every(rules.sample_generations.output, model=MEASURED),
        rules.summarize_diversity.output,
        every(rules.plot_diversity.output, model=MEASURED),
