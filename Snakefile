# Inferometer: the way in. What depends on what is in rules/, what is computed in inferometer/.

import os
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from inferometer.attention.names import DUMMIES
from inferometer.chapters import names_read
from inferometer.code_version import code_version
from inferometer.config import validate
from inferometer.errors import InferometerError
from inferometer.jobs import CALLER
from inferometer.scheme_checks import calibrates

min_version("9.0")

# Jobs end when this process does, however it ends.
os.environ[CALLER] = str(os.getpid())


configfile: Path(workflow.basedir, "config", "config.yaml")


try:
    validate(config, root=Path(workflow.basedir), folder=Path.cwd())
except InferometerError as error:
    raise WorkflowError(str(error))


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/sources.smk"
include: "rules/calibration.smk"
include: "rules/smoothing.smk"
include: "rules/rotation.smk"
include: "rules/evaluation.smk"
include: "rules/capacity.smk"
include: "rules/profiling.smk"
include: "rules/kv_cache.smk"
include: "rules/generation.smk"
include: "rules/attention.smk"
include: "rules/export.smk"
include: "rules/fundamentals.smk"
include: "rules/provenance.smk"
include: "rules/claims.smk"
include: "rules/report.smk"


# What is older than this file was kept from an earlier call, which the page tells of each rule.
onstart:
    started = Path("results/logs/started")
    started.parent.mkdir(parents=True, exist_ok=True)
    started.touch()


# Every file is asked for by name: one that lies between others, and that a failed job
# has removed, would otherwise not be missed, and an old page would pass for a new one.
rule all:
    default_target: True
    input:
        rules.sources.input,
        of_chapter(
            "evaluation",
            rules.calibration.input,
            rules.smoothing.input,
            rules.rotation.input,
            rules.evaluation.input,
        ),
        of_chapter("capacity", rules.capacity.input),
        of_chapter("profiling", rules.profiling.input),
        of_chapter("kv_cache", rules.kv_cache.input),
        of_chapter("generation", rules.generation.input),
        of_chapter("attention", rules.attention.input),
        of_chapter("fundamentals", rules.fundamentals.input),
        rules.provenance.input,
        rules.claims.input,
        rules.summarize_runs.output,
        rules.report.output,
