# Tables and figures become the one page that reviewers read.

FIGURES = [
    "results/summary/perplexity.svg",
    *expand("results/{model}/calibration/distributions.svg", model=MEASURED),
    *expand(
        "results/{model}/calibration/surfaces-{tensor}.png",
        model=MEASURED,
        tensor=["activation", "weight"],
    ),
    "results/summary/pareto.svg",
    *expand(
        "results/{model}/smoothing/{scheme}/channels.svg",
        model=MEASURED,
        scheme=SMOOTHED,
    ),
    *expand(
        "results/{model}/smoothing/{scheme}/alphas.svg",
        model=MEASURED,
        scheme=SEARCHED,
    ),
    *expand(
        "results/{model}/evaluation/{scheme}/sensitivity.svg",
        model=MEASURED,
        scheme=SENSITIVE,
    ),
    *expand("results/capacity/{figure}.svg", figure=["batches", "cache", "intensity"]),
    "results/summary/roofline.svg",
    *expand(
        "results/{model}/profiling/{figure}.svg",
        model=MODELS,
        figure=["latency", "memory"],
    ),
    *expand(
        "results/{model}/profiling/{figure}.svg",
        model=MEASURED,
        figure=["cache", "kernels", "baseline"],
    ),
    *expand(
        "results/{model}/kv_cache/{figure}.svg",
        model=MEASURED,
        figure=["accuracy", "bytes", "bits"],
    ),
    *expand(
        "results/{model}/generation/{figure}.svg",
        model=MEASURED,
        figure=["features", "diversity", "insertions"],
    ),
    *expand(
        "results/{model}/attention/{figure}.svg",
        model=MEASURED,
        figure=ATTENTION_FIGURES,
    ),
    "results/fundamentals/digits.svg",
    "results/fundamentals/decoder.svg",
]


rule summarize_runs:
    input:
        expand("results/{model}/calibration/run.parquet", model=MEASURED),
        expand(
            "results/{model}/smoothing/{scheme}/run.parquet",
            model=MEASURED,
            scheme=SMOOTHED,
        ),
        expand(
            "results/{model}/rotation/{seed}/run.parquet", model=MEASURED, seed=SEEDS
        ),
        expand(
            "results/{model}/evaluation/{scheme}/run.parquet",
            model=MEASURED,
            scheme=SCHEMES,
        ),
        expand(
            "results/{model}/evaluation/{scheme}/sensitivity-run.parquet",
            model=MEASURED,
            scheme=SENSITIVE,
        ),
        expand(
            "results/{model}/profiling/{part}-run.parquet",
            model=MODELS,
            part=["latency", "memory"],
        ),
        expand(
            "results/{model}/profiling/{part}-run.parquet",
            model=MEASURED,
            part=["cache", "baseline"],
        ),
        expand("results/{model}/kv_cache/run.parquet", model=MEASURED),
        expand(
            "results/{model}/generation/{run}.parquet",
            model=MEASURED,
            run=["run", "samples-run"],
        ),
        expand(
            "results/{model}/attention/{part}.parquet",
            model=MEASURED,
            part=["run", "rounded-run", "eviction-run"],
        ),
        "results/fundamentals/digits-run.parquet",
        "results/fundamentals/decoder-run.parquet",
    output:
        "results/summary/runs.parquet",
    log:
        "results/logs/summarize_runs.log",
    benchmark:
        "results/benchmarks/summarize_runs.tsv"
    params:
        code=code("summarize_runs.py"),
    script:
        "../workflow/scripts/summarize_runs.py"


rule report:
    input:
        expand("results/{model}/sources/model.json", model=MODELS),
        expand(
            "results/{model}/smoothing/{scheme}/sites.parquet",
            model=MEASURED,
            scheme=SMOOTHED,
        ),
        expand(
            "results/{model}/smoothing/{scheme}/alphas.parquet",
            model=MEASURED,
            scheme=SEARCHED,
        ),
        expand(
            "results/{model}/rotation/{seed}/{table}.parquet",
            model=MEASURED,
            seed=SEEDS,
            table=["paths", "basis"],
        ),
        "results/summary/schemes.parquet",
        "results/summary/accuracy.parquet",
        "results/summary/gains.parquet",
        "results/summary/ranges.parquet",
        "results/summary/runs.parquet",
        rules.predict_capacity.output,
        rules.compare_bytes.output,
        rules.measure_machine.output,
        rules.summarize_profiling.output,
        expand("results/{model}/profiling/cache_checks.parquet", model=MEASURED),
        expand("results/{model}/profiling/baseline.parquet", model=MEASURED),
        rules.summarize_kv_cache.output,
        expand(
            "results/{model}/kv_cache/{policy}/trace.parquet",
            model=MEASURED,
            policy=CHOOSING_POLICIES,
        ),
        expand(
            "results/{model}/generation/{table}.parquet",
            model=MEASURED,
            table=["written", "features", "samples", "diversity"],
        ),
        rules.summarize_generation.output,
        rules.summarize_diversity.output,
        expand(
            "results/{model}/attention/{table}.parquet",
            model=MEASURED,
            table=["heads", "maps", "residuals", "rounded"],
        ),
        rules.summarize_attention.output,
        rules.summarize_eviction.output,
        "results/summary/digits.parquet",
        "results/summary/decoder.parquet",
        "results/fundamentals/decoder_checks.parquet",
        rules.judge_claims.output,
        FIGURES,
    output:
        "results/report.html",
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    params:
        config=config,
        code=code(
            "write_report.py",
            *("report/*.j2", "report/*.css", "report/*.js", "report/*.yaml"),
        ),
    script:
        "../workflow/scripts/write_report.py"
