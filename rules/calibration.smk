# One forward pass over calibration text streams every activation and weight statistic.


rule calibrate:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['calibration']['corpus']}.parquet",
    output:
        activations="results/{model}/calibration/activations.parquet",
        weights="results/{model}/calibration/weights.parquet",
        histograms="results/{model}/calibration/histograms.parquet",
        surfaces="results/{model}/calibration/surfaces.parquet",
        run="results/{model}/calibration/run.parquet",
    log:
        "results/logs/calibrate/{model}.log",
    benchmark:
        "results/benchmarks/calibrate/{model}.tsv"
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(4000),
        runtime=120,
    params:
        settings={
            key: value
            for key, value in config["calibration"].items()
            if key != "rounding_windows"
        },
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("calibrate.py"),
    script:
        "../workflow/scripts/calibrate.py"


rule summarize_ranges:
    input:
        activations=expand(
            "results/{model}/calibration/activations.parquet", model=MEASURED
        ),
        weights=expand("results/{model}/calibration/weights.parquet", model=MEASURED),
    output:
        table="results/summary/ranges.parquet",
        csv=report(
            "results/summary/ranges.csv",
            category="Calibration",
            labels={"table": "Dynamic ranges of weights and activations"},
            caption="../report/captions/ranges.rst",
        ),
    log:
        "results/logs/summarize_ranges.log",
    benchmark:
        "results/benchmarks/summarize_ranges.tsv"
    params:
        models=MEASURED,
        code=code("summarize_ranges.py"),
    script:
        "../workflow/scripts/summarize_ranges.py"


rule plot_distributions:
    input:
        "results/{model}/calibration/histograms.parquet",
    output:
        report(
            "results/{model}/calibration/distributions.svg",
            category="Calibration",
            subcategory="{model}",
            labels={
                "model": "{model}",
                "figure": "Distributions of weights and activations",
            },
            caption="../report/captions/distributions.rst",
        ),
    log:
        "results/logs/plot_distributions/{model}.log",
    benchmark:
        "results/benchmarks/plot_distributions/{model}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_distributions.py"),
    script:
        "../workflow/scripts/plot_distributions.py"


rule plot_surfaces:
    input:
        "results/{model}/calibration/surfaces.parquet",
    output:
        report(
            "results/{model}/calibration/surfaces-{tensor}.png",
            category="Calibration",
            subcategory="{model}",
            labels={"model": "{model}", "figure": "Surfaces: {tensor} magnitudes"},
            caption="../report/captions/surfaces.rst",
        ),
    log:
        "results/logs/plot_surfaces/{model}/{tensor}.log",
    benchmark:
        "results/benchmarks/plot_surfaces/{model}/{tensor}.tsv"
    wildcard_constraints:
        tensor="activation|weight",
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_surfaces.py"),
    script:
        "../workflow/scripts/plot_surfaces.py"


rule calibration:
    input:
        every(rules.calibrate.output, model=MEASURED),
        rules.summarize_ranges.output,
        every(rules.plot_distributions.output, model=MEASURED),
        every(
            rules.plot_surfaces.output, model=MEASURED, tensor=["activation", "weight"]
        ),
