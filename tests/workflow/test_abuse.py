"""Hostile configurations through the real Snakefile: one sentence and never a traceback, and odd ones still plan."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.snakemake_runs import Change, Outcome, Study, dry_runs, setting

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study

LOCAL = {"source": "local", "path": "models/tiny"}
WHEEL = {"source": "pypi", "version": "1", "wheel_sha256": "0" * 64, "file": "a.gguf", "file_sha256": "0" * 64}
ALIASES = "\n".join(
    [
        "a: &a [lol, lol, lol]",
        *(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefghi")),
    ]
)

# What Snakemake hands over of a file, and what the user is told.
HOSTILE: dict[str, tuple[str, str]] = {
    "aliases that stand for billions": (
        f"claims:\n- {{x: 1}}\n{ALIASES}\nfigures: *i",
        "stands for more than 1,000,000",
    ),
    "a list that holds itself": ("claims: &a [*a]", "nested more than 32 levels deep"),
    "a number of thousands of digits": (
        f"figures: {{dpi: 0x{'f' * 5000}}}",
        "`figures.dpi` is a whole number of 20000",
    ),
    "keys that are no text": ("models: {3: {a: b}, null: 1, 2020-01-01: 2}", "`models` defines 3, which is no text"),
    "a key of several lines": ('"evil\\nkey\\e[31m": 1', "unknown configuration key `evil\\nkey\\x1b[31m`; known"),
    "bytes": ("study: {title: !!binary aGVsbG8=}", "`study.title` is b'hello', which is no text"),
    "a name that leads out": (json.dumps({"models": {"../../evil": LOCAL}}), "`models` defines '../../evil'; a name"),
    "a name that is a path": (json.dumps({"models": {"/etc": LOCAL}}), "`models` defines '/etc'; a name"),
    "a name with a wildcard": (json.dumps({"models": {"{model}": LOCAL}}), "`models` defines '{model}'; a name"),
    "a name with an end of line": (json.dumps({"models": {"tiny\n": LOCAL}}), r"`models` defines 'tiny\n'; a name"),
    "a name with a zero": (json.dumps({"models": {"ti\0ny": LOCAL}}), r"`models` defines 'ti\x00ny'; a name"),
    "a name of other letters": (json.dumps({"models": {"tіny": LOCAL}}), "`models` defines 'tіny'; a name"),
    "a name without end": (json.dumps({"models": {"a" * 5000: LOCAL}}), "a name has up to 64"),
    "a path without end": (json.dumps({"models": {"own": LOCAL | {"path": "a" * 5000}}}), "File name too long"),
    "a path with a zero": (json.dumps({"models": {"own": LOCAL | {"path": "a\0b"}}}), "can't be read (embedded null"),
    "a device": (json.dumps({"models": {"own": LOCAL | {"path": "/dev/zero"}}}), "is neither a file nor a folder"),
    "a pipe of claims": (json.dumps({"claims": ["/dev/stdin"]}), "which is not a file"),
    "a path with a wildcard": (
        json.dumps({"models": {"own": LOCAL | {"path": "models/{model}"}}}),
        "`models.own.path` has a brace, which would pass for a wildcard",
    ),
    "claims with a wildcard": (json.dumps({"claims": ["{model}.yaml"]}), "`claims` has a brace, which would pass for"),
    "options for pip": (
        json.dumps({"models": {"own": WHEEL | {"package": "--no-binary :all:\nevil"}}}),
        "`models.own.package` is '--no-binary :all:\\nevil'; it must match",
    ),
    "a place for pip": (
        json.dumps({"models": {"own": WHEEL | {"package": "evil @ https://example.org/evil.whl"}}}),
        "`models.own.package` is 'evil @ https://example.org/evil.whl'; it must match",
    ),
}


def planned(study: Study, content: str, folder: Path) -> Outcome:
    """A dry run of the default study under a file as it stands."""
    folder.mkdir()
    (folder / "hostile.yaml").write_text(content, encoding="utf-8")
    return study.snakemake("--dry-run", "--configfile", str(folder / "hostile.yaml"))


@pytest.fixture(scope="module")
def refusals(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """A dry run with every hostile file."""
    folder = tmp_path_factory.mktemp("hostile")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = [(content, folder / str(place)) for place, (content, _) in enumerate(HOSTILE.values())]
        return dict(zip(HOSTILE, pool.map(lambda case: planned(study, *case), contents), strict=True))


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_configuration_is_refused_in_one_sentence(refusals: dict[str, Outcome], what: str) -> None:
    outcome, (_, told) = refusals[what], HOSTILE[what]
    assert outcome.status == 1
    assert told in outcome.sentence
    assert "WorkflowError in file" in outcome.output
    assert "Traceback" not in outcome.output
    assert "Building DAG" not in outcome.output
    assert len(outcome.output) < 4000


def test_snakemake_runs_a_file_that_calls_itself_a_program_and_the_check_does_not(study: Study, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    content = f"__use_yte__: true\nstudy:\n  title: ?str(open({str(canary)!r}, 'w'))\n"
    (tmp_path / "own.yaml").write_text(content, encoding="utf-8")
    check = [study.command()[0], "-m", "inferometer.check", str(tmp_path / "own.yaml")]
    done = subprocess.run(check, env=study.place.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unknown configuration key `__use_yte__`" in done.stderr
    assert not canary.exists()
    planned(study, content, tmp_path / "planned")
    assert canary.exists()  # what SECURITY.md warns of


def without_chapters(*chapters: str) -> Change:
    return setting(list(chapters), "study", "chapters")


def together(*changes: Change) -> Change:
    def change(config: dict[str, Any]) -> None:
        for each in changes:
            each(config)

    return change


def named(section: str, old: str, new: str, *uses: Callable[[dict[str, Any], str], object]) -> Change:
    """Give an entry a name that is also that of a folder of results."""

    def change(config: dict[str, Any]) -> None:
        config[section][new] = config[section].pop(old)
        for use in uses:
            use(config, new)

    return change


def random_chapters(seed: int) -> Change:
    chapters = ["evaluation", "capacity", "profiling", "kv_cache", "generation", "attention", "fundamentals"]
    draw = random.Random(seed)
    return without_chapters(*draw.sample(chapters, draw.randint(1, len(chapters))))


ODD: dict[str, Change] = {
    "a model called summary": named("models", "tiny", "summary", lambda c, new: c["study"].update(models=[new])),
    "a model called sources": named("models", "tiny", "sources", lambda c, new: c["study"].update(models=[new])),
    "a model called logs": named("models", "tiny", "logs", lambda c, new: c["study"].update(models=[new])),
    "the float scheme alone": together(
        setting(["fp"], "study", "schemes"),
        setting([], "evaluation", "sensitivity", "schemes"),
        setting([], "attention", "rounding", "schemes"),
    ),
    "nothing rounded in attention": together(
        setting([], "attention", "rounding", "schemes"), setting([], "attention", "rounding", "policies")
    ),
    "the largest numbers": together(
        setting(2**63 - 1, "evaluation", "window_tokens"),
        setting([2**63 - 1], "capacity", "context_tokens"),
        setting(2**63 - 1, "fundamentals", "digits", "epochs"),
    ),
    "shapes alone": together(setting(["shape"], "study", "models"), without_chapters("capacity", "profiling")),
    **{f"chapters {seed}": random_chapters(seed) for seed in range(5)},
}


@pytest.fixture(scope="module")
def plans(study: Study) -> dict[str, Outcome]:
    """A dry run of every odd study."""
    return dict(zip(ODD, dry_runs(study.changed(change) for change in ODD.values()), strict=True))


@pytest.mark.parametrize("what", ODD)
def test_an_odd_study_that_is_valid_can_be_planned(plans: dict[str, Outcome], what: str) -> None:
    assert plans[what].status == 0, plans[what].output
    assert "Traceback" not in plans[what].output


def test_files_of_any_name_in_a_model_s_folder_are_files(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "$(touch canary) model"
    shutil.copytree(study.folder / "models" / "tiny", folder)
    for name in ("{wildcards.model}.txt", "a\nb.txt", "$(touch canary)", "--help", "\u202etxt", "*"):
        (folder / name).touch()
    outcome = study.changed(setting(str(folder), "models", "tiny", "path")).snakemake("--dry-run")
    assert outcome.status == 0, outcome.output
    assert "Traceback" not in outcome.output
