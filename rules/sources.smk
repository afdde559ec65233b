# Models and corpora become verified local files. Only these rules use the network.

DESCRIPTIVE = {"licence", "attribution", "caveat", "dtype"}


def what_to_fetch(section):
    """A wildcard's entry without what only the report or the loader reads."""

    def entry(wildcards):
        (name,) = wildcards
        return {
            key: value
            for key, value in config[section][name].items()
            if key not in DESCRIPTIVE
            or (key == "dtype" and config[section][name]["source"] == "architecture")
        }

    return entry


def local_files(section):
    """The files behind a local source, so that a changed file is noticed; nothing for the others."""

    def files(wildcards):
        (name,) = wildcards
        entry = config[section][name]
        if entry["source"] != "local":
            return []
        path = Path(entry["path"])
        return (
            [path]
            if path.is_file()
            else sorted(p for p in path.iterdir() if p.is_file())
        )

    return files


rule sources:
    input:
        expand("results/{model}/sources/model.json", model=MODELS),


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
