"""Predict parameters, bytes, batches and arithmetic intensity of public models and of the study's own."""

import logging
from pathlib import Path

from snakemake.iocontainers import Snakemake

from inferometer.capacity import chapter, tables
from inferometer.capacity.catalogue import find_shape, shape_or_reason
from inferometer.jobs import job
from inferometer.tables import write_table

snakemake: Snakemake

with job(snakemake.log[0]):
    settings, output = snakemake.params.settings, snakemake.output
    shapes = {name: find_shape(name) for name in settings["models"]}
    for name, checkpoint in zip(snakemake.params.models, snakemake.input.checkpoints, strict=True):
        match shape_or_reason(Path(checkpoint), name):
            case str() as reason:
                logging.getLogger("inferometer").warning("%s", reason)
            case shape:
                shapes[name] = shape
    write_table(tables.PARAMETERS, chapter.parameters(shapes), Path(output.parameters))
    write_table(tables.WEIGHTS, chapter.weights(shapes, settings["dtype"]), Path(output.weights))
    write_table(tables.REQUESTS, chapter.requests(shapes, settings), Path(output.requests))
    write_table(tables.INTENSITY, chapter.intensity(shapes, settings), Path(output.intensity))
    write_table(tables.RIDGES, chapter.ridges(), Path(output.ridges))
    write_table(tables.STUDIES, chapter.studies(), Path(output.studies))
