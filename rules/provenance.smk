# Which rules the study runs, and what each of them waits for.


rule list_rules:
    output:
        "results/provenance/rules.parquet",
    log:
        "results/logs/list_rules.log",
    benchmark:
        "results/benchmarks/list_rules.tsv"
    params:
        needs=rule_needs,
        code=code("list_rules.py"),
    script:
        "../workflow/scripts/list_rules.py"


rule plot_rules:
    input:
        "results/provenance/rules.parquet",
    output:
        report(
            "results/provenance/rules.svg",
            category="Provenance",
            labels={"figure": "Rule graph"},
            caption="../report/captions/rules.rst",
        ),
    log:
        "results/logs/plot_rules.log",
    benchmark:
        "results/benchmarks/plot_rules.tsv"
    params:
        dpi=config["figures"]["dpi"],
        code=code("plot_rules.py"),
    script:
        "../workflow/scripts/plot_rules.py"


rule provenance:
    input:
        rules.list_rules.output,
        rules.plot_rules.output,
