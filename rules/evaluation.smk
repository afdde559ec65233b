# How well a model predicts text and answers questions under each scheme, against the float model on the same.


rule evaluate:
    input:
        unpack(scheme_tables),
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['evaluation']['corpus']}.parquet",
        questions=expand(
            "results/sources/questions/{question_set}.parquet",
            question_set=QUESTION_SETS,
        ),
        hidden=f"results/{{model}}/evaluation/{REFERENCE}/hidden.safetensors",
    output:
        windows="results/{model}/evaluation/{scheme}/perplexity.parquet",
        fidelity="results/{model}/evaluation/{scheme}/fidelity.parquet",
        choices="results/{model}/evaluation/{scheme}/choices.parquet",
        layers="results/{model}/evaluation/{scheme}/layers.parquet",
        storage="results/{model}/evaluation/{scheme}/storage.parquet",
        run="results/{model}/evaluation/{scheme}/run.parquet",
    log:
        "results/logs/evaluate/{model}/{scheme}.log",
    benchmark:
        "results/benchmarks/evaluate/{model}/{scheme}.tsv"
    wildcard_constraints:
        scheme="|".join(
            re.escape(scheme) for scheme in config["schemes"] if scheme != REFERENCE
        ),
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(6000),
        runtime=240,
    params:
        scheme=how_it_rounds,
        rounding=rounding_settings,
        settings={
            key: value
            for key, value in config["evaluation"].items()
            if key not in ("reference", "sensitivity")
        },
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("evaluate.py"),
    script:
        "../workflow/scripts/evaluate.py"


# The float model comes first: what it makes of each token is what the schemes are compared with.
use rule evaluate as evaluate_reference with:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['evaluation']['corpus']}.parquet",
        questions=expand(
            "results/sources/questions/{question_set}.parquet",
            question_set=QUESTION_SETS,
        ),
    output:
        windows="results/{model}/evaluation/{scheme}/perplexity.parquet",
        fidelity="results/{model}/evaluation/{scheme}/fidelity.parquet",
        choices="results/{model}/evaluation/{scheme}/choices.parquet",
        layers="results/{model}/evaluation/{scheme}/layers.parquet",
        storage="results/{model}/evaluation/{scheme}/storage.parquet",
        run="results/{model}/evaluation/{scheme}/run.parquet",
        hidden="results/{model}/evaluation/{scheme}/hidden.safetensors",
    log:
        "results/logs/evaluate_reference/{model}/{scheme}.log",
    benchmark:
        "results/benchmarks/evaluate_reference/{model}/{scheme}.tsv"
    wildcard_constraints:
        scheme=re.escape(REFERENCE),


rule measure_sensitivity:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['evaluation']['corpus']}.parquet",
    output:
        sensitivity="results/{model}/evaluation/{scheme}/sensitivity.parquet",
        run="results/{model}/evaluation/{scheme}/sensitivity-run.parquet",
    log:
        "results/logs/measure_sensitivity/{model}/{scheme}.log",
    benchmark:
        "results/benchmarks/measure_sensitivity/{model}/{scheme}.tsv"
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(4000),
        runtime=240,
    params:
        scheme=how_it_rounds,
        settings={
            "corpus": config["evaluation"]["corpus"],
            "window_tokens": config["evaluation"]["sensitivity"]["window_tokens"],
        },
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("measure_sensitivity.py"),
    script:
        "../workflow/scripts/measure_sensitivity.py"


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
        gains="results/summary/gains.parquet",
        gains_csv=report(
            "results/summary/gains.csv",
            category="Evaluation",
            labels={"table": "What smoothing and rotation gain"},
            caption="../report/captions/gains.rst",
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


rule summarize_schemes:
    input:
        perplexity="results/summary/perplexity.parquet",
        cells=[
            f"results/{model}/evaluation/{scheme}/{table}.parquet"
            for model, scheme in CELLS
            for table in ("fidelity", "choices", "layers", "storage")
        ],
    output:
        table="results/summary/schemes.parquet",
        csv=report(
            "results/summary/schemes.csv",
            category="Evaluation",
            labels={"table": "All schemes"},
            caption="../report/captions/schemes.rst",
        ),
        accuracy="results/summary/accuracy.parquet",
        accuracy_csv=report(
            "results/summary/accuracy.csv",
            category="Evaluation",
            labels={"table": "Accuracy by question set"},
            caption="../report/captions/accuracy.rst",
        ),
    log:
        "results/logs/summarize_schemes.log",
    benchmark:
        "results/benchmarks/summarize_schemes.tsv"
    params:
        cells=CELLS,
        reference=REFERENCE,
        code=code("summarize_schemes.py"),
    script:
        "../workflow/scripts/summarize_schemes.py"


rule plot_pareto:
    input:
        "results/summary/schemes.parquet",
    output:
        report(
            "results/summary/pareto.svg",
            category="Evaluation",
            labels={"figure": "Perplexity against bytes"},
            caption="../report/captions/pareto.rst",
        ),
    log:
        "results/logs/plot_pareto.log",
    benchmark:
        "results/benchmarks/plot_pareto.tsv"
    params:
        models=MEASURED,
        schemes=SCHEMES,
        dpi=config["figures"]["dpi"],
        code=code("plot_pareto.py"),
    script:
        "../workflow/scripts/plot_pareto.py"


rule plot_sensitivity:
    input:
        "results/{model}/evaluation/{scheme}/sensitivity.parquet",
    output:
        report(
            "results/{model}/evaluation/{scheme}/sensitivity.svg",
            category="Evaluation",
            subcategory="{model}",
            labels={
                "model": "{model}",
                "figure": "Layers that {scheme} hurts",
            },
            caption="../report/captions/sensitivity.rst",
        ),
    log:
        "results/logs/plot_sensitivity/{model}/{scheme}.log",
    benchmark:
        "results/benchmarks/plot_sensitivity/{model}/{scheme}.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_sensitivity.py"),
    script:
        "../workflow/scripts/plot_sensitivity.py"


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
        every(rules.evaluate_reference.output, model=MEASURED, scheme=REFERENCE),
        every(rules.evaluate.output, model=MEASURED, scheme=ROUNDED),
        every(rules.measure_sensitivity.output, model=MEASURED, scheme=SENSITIVE),
        rules.summarize_perplexity.output,
        rules.plot_perplexity.output,
        rules.summarize_schemes.output,
        rules.plot_pareto.output,
        every(rules.plot_sensitivity.output, model=MEASURED, scheme=SENSITIVE),
