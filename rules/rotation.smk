# A rotation of the residual stream and of what the other layers read, proved to leave the float model unchanged;
# and how well the weights round to 4 bits as they are and as rotated.


rule rotate:
    input:
        manifest="results/{model}/sources/model.json",
        checkpoint=ancient("results/{model}/sources/checkpoint"),
        corpus=f"results/sources/corpora/{config['calibration']['corpus']}.parquet",
    output:
        paths="results/{model}/rotation/{seed}/paths.parquet",
        basis="results/{model}/rotation/{seed}/basis.parquet",
        run="results/{model}/rotation/{seed}/run.parquet",
    log:
        "results/logs/rotate/{model}/{seed}.log",
    benchmark:
        "results/benchmarks/rotate/{model}/{seed}.tsv"
    resources:
        gpu=GPUS,
        mem_mb=memory_mb(4000),
        runtime=60,
    params:
        settings={
            key: config["calibration"][key] for key in ("corpus", "window_tokens")
        },
        device=config["device"],
        code=code("rotate.py"),
    script:
        "../workflow/scripts/rotate.py"


rule rotation:
    input:
        every(rules.rotate.output, model=MEASURED, seed=SEEDS),
