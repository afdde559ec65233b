# How well a model predicts text under each scheme, paired against the float model.


rule evaluate:
    input:
        unpack(smoothing_tables),
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['evaluation']['corpus']}.parquet",
    output:
        windows="results/{model}/evaluation/{scheme}/perplexity.parquet",
        run="results/{model}/evaluation/{scheme}/run.parquet",
    log:
        "results/logs/evaluate/{model}/{scheme}.log",
    benchmark:
        "results/benchmarks/evaluate/{model}/{scheme}.tsv"
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=240,
    params:
        scheme=scheme_setting("weights", "activations"),
        settings={
            key: value
            for key, value in config["evaluation"].items()
            if key != "reference"
        },
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("evaluate.py"),
    script:
        "../workflow/scripts/evaluate.py"


rule summarize_perplexity:
    input:
        [
            f"results/{model}/evaluation/{scheme}/perplexity.parquet"
            for model, scheme in CELLS
        ],
    output:
        table="results/summary/perplexity.parquet",
        csv=report(
            "results/summary/perplexity.csv",
            category="Evaluation",
            labels={"table": "Perplexity by scheme"},
            caption="../report/captions/perplexity.rst",
        ),
        gains="results/summary/smoothing_gains.parquet",
        gains_csv=report(
            "results/summary/smoothing_gains.csv",
            category="Evaluation",
            labels={"table": "What smoothing gains"},
            caption="../report/captions/smoothing_gains.rst",
        ),
    log:
        "results/logs/summarize_perplexity.log",
    benchmark:
        "results/benchmarks/summarize_perplexity.tsv"
    params:
        cells=CELLS,
        bases=BASES,
        reference=config["evaluation"]["reference"],
        code=code("summarize_perplexity.py"),
    script:
        "../workflow/scripts/summarize_perplexity.py"


rule plot_perplexity:
    input:
        "results/summary/perplexity.parquet",
    output:
        report(
            "results/summary/perplexity.svg",
            category="Evaluation",
            labels={"figure": "Perplexity by scheme"},
            caption="../report/captions/perplexity.rst",
        ),
    log:
        "results/logs/plot_perplexity.log",
    benchmark:
        "results/benchmarks/plot_perplexity.tsv"
    params:
        schemes=SCHEMES,
        dpi=config["figures"]["dpi"],
        code=code("plot_perplexity.py"),
    script:
        "../workflow/scripts/plot_perplexity.py"


rule evaluation:
    input:
        expand(rules.evaluate.output, model=MEASURED, scheme=SCHEMES),
        rules.summarize_perplexity.output,
        rules.plot_perplexity.output,
