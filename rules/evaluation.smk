# How well a model predicts text under each scheme, paired against the float model.


def smoothing_tables(wildcards):
    """A scheme that smooths needs its factors and sites; the others need nothing."""
    if wildcards.scheme not in SMOOTHED:
        return {}
    folder = f"results/{wildcards.model}/smoothing/{wildcards.scheme}"
    return {"scales": f"{folder}/scales.parquet", "sites": f"{folder}/sites.parquet"}


rule evaluation:
    input:
        "results/summary/perplexity.parquet",


rule evaluate:
    input:
        unpack(smoothing_tables),
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['evaluation']['corpus']}.parquet",
    output:
        windows="results/{model}/evaluation/{scheme}/perplexity.parquet",
        run="results/{model}/evaluation/{scheme}/run.parquet",
    params:
        scheme=scheme_setting("weights", "activations"),
        settings={
            key: value for key, value in config["evaluation"].items() if key != "reference"
        },
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("evaluate.py"),
    log:
        "results/logs/evaluate/{model}/{scheme}.log",
    benchmark:
        "results/benchmarks/evaluate/{model}/{scheme}.tsv"
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=240,
    script:
        "../workflow/scripts/evaluate.py"


CELLS = [(model, scheme) for model in MEASURED for scheme in SCHEMES]


rule summarize_perplexity:
    input:
        [f"results/{model}/evaluation/{scheme}/perplexity.parquet" for model, scheme in CELLS],
    output:
        table="results/summary/perplexity.parquet",
        csv=report(
            "results/summary/perplexity.csv",
            category="Evaluation",
            labels={"table": "Perplexity by scheme"},
            caption="../report/captions/perplexity.rst",
        ),
    params:
        cells=CELLS,
        reference=config["evaluation"]["reference"],
        code=code("summarize_perplexity.py"),
    log:
        "results/logs/summarize_perplexity.log",
    benchmark:
        "results/benchmarks/summarize_perplexity.tsv"
    script:
        "../workflow/scripts/summarize_perplexity.py"
