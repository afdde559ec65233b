# What studies claim, and what all tables together say about it.


rule claims:
    input:
        "results/claims.parquet",
        "results/claims.csv",


# Every table that a query may read, as inferometer/claims/evidence.py lists them; it takes missing ones for empty.
rule judge_claims:
    input:
        claims=[local(path) for path in config["claims"]],
        tables=[
            of_chapter(
                "evaluation",
                "results/summary/ranges.parquet",
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
                expand(
                    "results/{model}/evaluation/{scheme}/{table}.parquet",
                    model=MEASURED,
                    scheme=SCHEMES,
                    table=["perplexity", "choices"],
                ),
                rules.summarize_perplexity.output,
                rules.summarize_schemes.output,
            ),
            of_chapter(
                "capacity",
                rules.predict_capacity.output,
                of_chapter("evaluation", rules.compare_bytes.output),
                "results/machine.parquet",
            ),
            of_chapter(
                "profiling",
                expand(
                    "results/{model}/profiling/{table}.parquet",
                    model=MODELS,
                    table=["latency", "memory"],
                ),
                expand(
                    "results/{model}/profiling/{table}.parquet",
                    model=MEASURED,
                    table=["cache", "cache_checks", "kernels", "baseline"],
                ),
                rules.summarize_profiling.output,
            ),
            of_chapter(
                "kv_cache",
                of_every_cell("choices"),
                of_every_cell("latency"),
                expand(
                    "results/{model}/kv_cache/{policy}/trace.parquet",
                    model=MEASURED,
                    policy=CHOOSING_POLICIES,
                ),
                rules.summarize_kv_cache.output,
            ),
            of_chapter(
                "generation",
                expand(
                    "results/{model}/generation/{table}.parquet",
                    model=MEASURED,
                    table=[
                        "written",
                        "features",
                        "insertions",
                        "samples",
                        "diversity",
                    ],
                ),
                rules.summarize_generation.output,
                rules.summarize_diversity.output,
            ),
            of_chapter(
                "attention",
                expand(
                    "results/{model}/attention/{table}.parquet",
                    model=MEASURED,
                    table=["heads", "residuals"],
                ),
                rules.summarize_attention.output,
                rules.summarize_eviction.output,
            ),
            of_chapter(
                "fundamentals",
                "results/fundamentals/decoder_checks.parquet",
                "results/fundamentals/decoder_latency.parquet",
                rules.summarize_fundamentals.output,
            ),
        ],
    output:
        table="results/claims.parquet",
        csv=report(
            "results/claims.csv",
            caption="../report/captions/claims.rst",
            category="Claims",
            labels={"table": "verdicts"},
        ),
    log:
        "results/logs/judge_claims.log",
    benchmark:
        "results/benchmarks/judge_claims.tsv"
    params:
        models=MEASURED,
        code=code("judge_claims.py", "inferometer/claims/*.yaml", "report/claims.yaml"),
    script:
        "../workflow/scripts/judge_claims.py"
