# Inferometer: the way in. What depends on what is in rules/, what is computed in inferometer/.

from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from inferometer.attention.names import DUMMIES
from inferometer.code_version import code_version
from inferometer.config import validate
from inferometer.errors import InferometerError
from inferometer.scheme_checks import calibrates

min_version("9.0")


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
include: "rules/claims.smk"
include: "rules/report.smk"


# Every file is asked for by name: one that lies between others, and that a failed job
# has removed, would otherwise not be missed, and an old page would pass for a new one.
rule all:
    default_target: True
    input:
        rules.sources.input,
        rules.calibration.input,
        rules.smoothing.input,
        rules.rotation.input,
        rules.evaluation.input,
        rules.capacity.input,
        rules.profiling.input,
        rules.kv_cache.input,
        rules.generation.input,
        rules.attention.input,
        rules.fundamentals.input,
        rules.claims.input,
        rules.summarize_runs.output,
        rules.report.output,
