# Models and corpora become verified local files. Only these rules use the network.


rule fetch_model:
    input:
        local_files("models"),
    output:
        manifest="results/{model}/sources/model.json",
        checkpoint=directory("results/{model}/sources/checkpoint"),
    log:
        "results/logs/fetch_model/{model}.log",
    benchmark:
        "results/benchmarks/fetch_model/{model}.tsv"
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        entry=what_to_fetch("models"),
        code=code("fetch_model.py"),
    script:
        "../workflow/scripts/fetch_model.py"


rule fetch_corpus:
    input:
        local_files("corpora"),
    output:
        "results/sources/corpora/{corpus}.parquet",
    log:
        "results/logs/fetch_corpus/{corpus}.log",
    benchmark:
        "results/benchmarks/fetch_corpus/{corpus}.tsv"
    params:
        entry=what_to_fetch("corpora"),
        code=code("fetch_corpus.py"),
    script:
        "../workflow/scripts/fetch_corpus.py"


rule sources:
    input:
        expand(rules.fetch_model.output, model=MODELS),
        expand(rules.fetch_corpus.output, corpus=CORPORA),
