# Tables and figures become the one page that reviewers read.

FIGURES = [
    of_chapter(
        "evaluation",
        "results/summary/perplexity.svg",
        expand("results/{model}/calibration/distributions.svg", model=MEASURED),
        expand(
            "results/{model}/calibration/surfaces-{tensor}.png",
            model=MEASURED,
            tensor=["activation", "weight"],
        ),
        "results/summary/pareto.svg",
        expand(
            "results/{model}/smoothing/{scheme}/channels.svg",
            model=MEASURED,
            scheme=SMOOTHED,
        ),
        expand(
            "results/{model}/smoothing/{scheme}/alphas.svg",
            model=MEASURED,
            scheme=SEARCHED,
        ),
        expand(
            "results/{model}/evaluation/{scheme}/sensitivity.svg",
            model=MEASURED,
            scheme=SENSITIVE,
        ),
    ),
    of_chapter(
        "capacity",
        expand(
            "results/capacity/{figure}.svg", figure=["batches", "cache", "intensity"]
        ),
    ),
    of_chapter(
        "profiling",
        "results/summary/roofline.svg",
        expand(
            "results/{model}/profiling/{figure}.svg",
            model=MODELS,
            figure=["latency", "memory"],
        ),
        expand(
            "results/{model}/profiling/{figure}.svg",
            model=MEASURED,
            figure=["cache", "kernels", "baseline"],
        ),
    ),
    of_chapter(
        "kv_cache",
        expand(
            "results/{model}/kv_cache/{figure}.svg",
            model=MEASURED,
            figure=["accuracy", "bytes", "bits"],
        ),
    ),
    of_chapter(
        "generation",
        expand(
            "results/{model}/generation/{figure}.svg",
            model=MEASURED,
            figure=["features", "diversity", "insertions"],
        ),
    ),
    of_chapter(
        "attention",
        expand(
            "results/{model}/attention/{figure}.svg",
            model=MEASURED,
            figure=ATTENTION_FIGURES,
        ),
    ),
    of_chapter(
        "fundamentals",
        "results/fundamentals/digits.svg",
        "results/fundamentals/decoder.svg",
    ),
    "results/provenance/rules.svg",
]


rule summarize_runs:
    input:
        of_chapter(
            "evaluation",
            expand("results/{model}/calibration/run.parquet", model=MEASURED),
            expand(
                "results/{model}/smoothing/{scheme}/run.parquet",
                model=MEASURED,
                scheme=SMOOTHED,
            ),
            expand(
                "results/{model}/rotation/{seed}/run.parquet",
                model=MEASURED,
                seed=SEEDS,
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
        ),
        of_chapter(
            "profiling",
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
        ),
        of_chapter(
            "kv_cache", expand("results/{model}/kv_cache/run.parquet", model=MEASURED)
        ),
        of_chapter(
            "generation",
            expand(
                "results/{model}/generation/{run}.parquet",
                model=MEASURED,
                run=["run", "samples-run"],
            ),
        ),
        of_chapter(
            "attention",
            expand(
                "results/{model}/attention/{part}.parquet",
                model=MEASURED,
                part=["run", "rounded-run", "eviction-run"],
            ),
        ),
        of_chapter(
            "fundamentals",
            "results/fundamentals/digits-run.parquet",
            "results/fundamentals/decoder-run.parquet",
        ),
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
        "results/summary/runs.parquet",
        of_chapter(
            "evaluation",
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
            "results/summary/perplexity.parquet",
            "results/summary/schemes.parquet",
            "results/summary/accuracy.parquet",
            "results/summary/gains.parquet",
            "results/summary/ranges.parquet",
        ),
        of_chapter(
            "capacity",
            rules.predict_capacity.output,
            of_chapter("evaluation", rules.compare_bytes.output),
            rules.measure_machine.output,
        ),
        of_chapter(
            "profiling",
            rules.summarize_profiling.output,
            expand("results/{model}/profiling/cache_checks.parquet", model=MEASURED),
            expand("results/{model}/profiling/baseline.parquet", model=MEASURED),
        ),
        of_chapter(
            "kv_cache",
            rules.summarize_kv_cache.output,
            expand(
                "results/{model}/kv_cache/{policy}/trace.parquet",
                model=MEASURED,
                policy=CHOOSING_POLICIES,
            ),
        ),
        of_chapter(
            "generation",
            expand(
                "results/{model}/generation/{table}.parquet",
                model=MEASURED,
                table=["written", "features", "samples", "diversity"],
            ),
            rules.summarize_generation.output,
            rules.summarize_diversity.output,
        ),
        of_chapter(
            "attention",
            expand(
                "results/{model}/attention/{table}.parquet",
                model=MEASURED,
                table=["heads", "maps", "residuals", "rounded"],
            ),
            rules.summarize_attention.output,
            rules.summarize_eviction.output,
        ),
        of_chapter(
            "fundamentals",
            "results/summary/digits.parquet",
            "results/summary/decoder.parquet",
            "results/fundamentals/decoder_checks.parquet",
        ),
        rules.judge_claims.output,
        FIGURES,
    output:
        page="results/report.html",
        configuration="results/provenance/configuration.yaml",
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    params:
        config=config,
        jobs=files_of_study,
        code=code(
            "write_report.py",
            *("report/*.j2", "report/*.css", "report/*.js", "report/*.yaml"),
        ),
    script:
        "../workflow/scripts/write_report.py"
