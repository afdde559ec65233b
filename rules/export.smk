# A model under a scheme as a checkpoint that transformers loads. Written when it is asked for by name:
# snakemake results/<model>/export/<scheme> --cores 1


rule export:
    input:
        unpack(scheme_tables),
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
    output:
        directory("results/{model}/export/{scheme}"),
    log:
        "results/logs/export/{model}/{scheme}.log",
    benchmark:
        "results/benchmarks/export/{model}/{scheme}.tsv"
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(6000),
        runtime=60,
    params:
        scheme=how_it_rounds,
        rounding=rounding_settings,
        dtype=model_setting("dtype", "auto"),
        device=config["device"],
        code=code("export.py"),
    script:
        "../workflow/scripts/export.py"
