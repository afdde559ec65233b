"""A study of twenty models and thirty schemes: its plan is exact and grows no faster than the study."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from benchmarks.scale_study import wide_study
from tests.workflow.test_plans import LEFT, complaints

pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[2]
SCHEMES = 30
SMOOTHED, SEARCHED, TEXTS = 5, 3, 5  # of the default's schemes and inputs of the attention chapter
JOBS_OF_A_MODEL = {
    "evaluate": SCHEMES - 1,
    "smooth": SMOOTHED,
    "plot_smoothing": SMOOTHED,
    "plot_alphas": SEARCHED,
    "plot_maps": TEXTS,
    "plot_surfaces": 2,
}
OTHER_RULES_OF_A_MODEL = 37
JOBS_OF_A_STUDY = {"fetch_corpus": 2, "fetch_questions": 2}
OTHER_RULES_OF_A_STUDY = 30


@dataclass(frozen=True)
class Called:
    """How a snakemake process ended, what it wrote, and the seconds of processor time that it took."""

    status: int
    output: str
    cpu_s: float


def called(folder: Path, models: int, *arguments: str) -> Called:
    """Call snakemake on a wide study in an empty folder."""
    overlay = folder / f"{models}.yaml"
    overlay.write_text(yaml.safe_dump(wide_study(models, SCHEMES), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(overlay), *arguments]
    written = folder / "output.txt"
    with written.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # so that nobody waits for it again
    return Called(process.returncode, written.read_text(encoding="utf-8"), used.ru_utime + used.ru_stime)


def counted(output: str) -> dict[str, int]:
    """The number of jobs of each rule that a dry run announces."""
    table = output.split("Job stats:\n")[-1].split("\n\n")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}


def jobs_of(models: int) -> int:
    """How many jobs a study has, the target `all` among them."""
    of_a_model = sum(JOBS_OF_A_MODEL.values()) + OTHER_RULES_OF_A_MODEL
    return models * of_a_model + sum(JOBS_OF_A_STUDY.values()) + OTHER_RULES_OF_A_STUDY + 1


def test_a_plan_is_exact_and_grows_no_faster_than_its_study(tmp_path: Path) -> None:
    plans = {models: called(tmp_path, models, "--dry-run") for models in (5, 20)}
    for models, plan in plans.items():
        assert plan.status == 0, plan.output
        jobs = counted(plan.output)
        assert jobs.pop("total") == jobs_of(models)
        assert {rule: jobs[rule] for rule in JOBS_OF_A_STUDY} == JOBS_OF_A_STUDY
        for rule, count in JOBS_OF_A_MODEL.items():
            assert jobs[rule] == models * count, rule
        assert sum(count == models for count in jobs.values()) == OTHER_RULES_OF_A_MODEL
    assert plans[20].cpu_s < 4 * plans[5].cpu_s


def test_a_wide_study_is_linted(tmp_path: Path) -> None:
    linted = called(tmp_path, 20, "--lint").output
    assert complaints(linted) == LEFT, linted
