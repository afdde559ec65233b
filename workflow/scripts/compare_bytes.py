"""Set the bytes that theory predicts of the study's models beside those that were measured."""

from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity.catalogue import shape_or_reason
from inferometer.capacity.chapter import Measured, stored
from inferometer.capacity.shapes import Shape
from inferometer.capacity.tables import STORED
from inferometer.evaluation.tables import STORAGE
from inferometer.jobs import job
from inferometer.manifest import Manifest
from inferometer.tables import read_table, records, write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    params, shapes, dtypes = snakemake.params, dict[str, Shape | str](), dict[str, str]()
    files = zip(params.dtypes.items(), snakemake.input.manifests, snakemake.input.checkpoints, strict=True)
    for (model, dtype), manifest, checkpoint in files:
        dtypes[model] = Manifest.read(Path(manifest)).dtype if dtype == "auto" else dtype
        shapes[model] = shape_or_reason(Path(checkpoint), model)
    measured = {}
    for cell, table in zip(params.cells, snakemake.input.storage, strict=True):
        [row] = records(read_table(STORAGE, Path(table)))
        measured[tuple(cell)] = Measured(row["weights_bytes"], row["skipped"])
    write_table(STORED, stored(shapes, dtypes, params.schemes, measured), Path(snakemake.output[0]))
