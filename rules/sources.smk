# Models, corpora and question sets become verified local files. Only these rules use the network.

QUESTION_SETS = config["evaluation"]["choices"]["question_sets"]


wildcard_constraints:
    question_set="|".join(map(re.escape, config["question_sets"])),
    image_set="|".join(map(re.escape, config["image_sets"])),


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
        mem_mb=memory_mb(8000),
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


rule fetch_questions:
    input:
        local_files("question_sets"),
    output:
        "results/sources/questions/{question_set}.parquet",
    log:
        "results/logs/fetch_questions/{question_set}.log",
    benchmark:
        "results/benchmarks/fetch_questions/{question_set}.tsv"
    params:
        entry=what_to_fetch("question_sets"),
        code=code("fetch_questions.py"),
    script:
        "../workflow/scripts/fetch_questions.py"


rule fetch_images:
    input:
        local_files("image_sets"),
    output:
        "results/sources/images/{image_set}.safetensors",
    log:
        "results/logs/fetch_images/{image_set}.log",
    benchmark:
        "results/benchmarks/fetch_images/{image_set}.tsv"
    params:
        entry=what_to_fetch("image_sets"),
        code=code("fetch_images.py"),
    script:
        "../workflow/scripts/fetch_images.py"


rule sources:
    input:
        every(rules.fetch_model.output, model=MODELS),
        every(rules.fetch_corpus.output, corpus=names_read(config, "corpora")),
        every(
            rules.fetch_questions.output,
            question_set=names_read(config, "question_sets"),
        ),
        of_chapter(
            "fundamentals",
            every(
                rules.fetch_images.output,
                image_set=config["fundamentals"]["digits"]["image_set"],
            ),
        ),
