# SmoothQuant: outliers move from activations into weights, and the float model is proved unchanged.


rule smooth:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['calibration']['corpus']}.parquet",
        activations="results/{model}/calibration/activations.parquet",
    output:
        scales="results/{model}/smoothing/{scheme}/scales.parquet",
        sites="results/{model}/smoothing/{scheme}/sites.parquet",
        alphas="results/{model}/smoothing/{scheme}/alphas.parquet",
        run="results/{model}/smoothing/{scheme}/run.parquet",
    log:
        "results/logs/smooth/{model}/{scheme}.log",
    benchmark:
        "results/benchmarks/smooth/{model}/{scheme}.tsv"
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(4000),
        runtime=60,
    params:
        scheme=what_smoothing_uses,
        settings={
            key: config["calibration"][key] for key in ("corpus", "window_tokens")
        },
        device=config["device"],
        code=code("smooth.py"),
    script:
        "../workflow/scripts/smooth.py"


rule plot_smoothing:
    input:
        activations="results/{model}/calibration/activations.parquet",
        weights="results/{model}/calibration/weights.parquet",
        scales="results/{model}/smoothing/{scheme}/scales.parquet",
        sites="results/{model}/smoothing/{scheme}/sites.parquet",
    output:
        report(
            "results/{model}/smoothing/{scheme}/channels.svg",
            category="Smoothing",
            subcategory="{model}",
            labels={
                "model": "{model}",
                "figure": "Channels before and after {scheme}",
            },
            caption="../report/captions/smoothing.rst",
        ),
    log:
        "results/logs/plot_smoothing/{model}/{scheme}.log",
    benchmark:
        "results/benchmarks/plot_smoothing/{model}/{scheme}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_smoothing.py"),
    script:
        "../workflow/scripts/plot_smoothing.py"


rule plot_alphas:
    input:
        "results/{model}/smoothing/{scheme}/alphas.parquet",
    output:
        report(
            "results/{model}/smoothing/{scheme}/alphas.svg",
            category="Smoothing",
            subcategory="{model}",
            labels={
                "model": "{model}",
                "figure": "Error against alpha for {scheme}",
            },
            caption="../report/captions/alphas.rst",
        ),
    log:
        "results/logs/plot_alphas/{model}/{scheme}.log",
    benchmark:
        "results/benchmarks/plot_alphas/{model}/{scheme}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_alphas.py"),
    script:
        "../workflow/scripts/plot_alphas.py"


rule smoothing:
    input:
        every(rules.smooth.output, model=MEASURED, scheme=SMOOTHED),
        every(rules.plot_smoothing.output, model=MEASURED, scheme=SMOOTHED),
        every(rules.plot_alphas.output, model=MEASURED, scheme=SEARCHED),
