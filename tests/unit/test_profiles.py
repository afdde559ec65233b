"""Profiles for clusters: which jobs go together as one."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTERS = ("slurm", "generic", "kubernetes")
RULE = re.compile(r"^rule (\w+):\n((?: {4}.*\n|\n)*)", flags=re.MULTILINE)
RULES = {
    name: body
    for path in (ROOT / "rules").glob("*.smk")
    for name, body in RULE.findall(path.read_text(encoding="utf-8"))
    if "script:" in body
}


def _profile(name: str) -> Any:
    return yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("profile", CLUSTERS)
def test_small_jobs_go_together_and_no_other(profile: str) -> None:
    groups = _profile(profile)["groups"]
    small = {name for name in RULES if name.startswith(("fetch_", "summarize_", "plot_"))}
    assert small < groups.keys() <= RULES.keys()
    assert not [name for name in groups if "gpu=GPUS" in RULES[name] or "threads:" in RULES[name]]
    assert groups == _profile(CLUSTERS[0])["groups"]


@pytest.mark.parametrize("profile", CLUSTERS)
def test_what_reruns_is_the_same_wherever_jobs_run(profile: str) -> None:
    keys = ("rerun-triggers", "rerun-incomplete", "max-checksum-file-size")
    assert [_profile(profile)[key] for key in keys] == [_profile("default")[key] for key in keys]
    assert "resources" not in _profile(profile), "a limit of `gpu` would have studies on the CPU ask for GPUs"
