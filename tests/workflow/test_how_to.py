"""docs/how-to.md is walked through as a reader would: what it says to write is written, what it says to run is run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from snakemake.utils import update_config

from inferometer.config import validate
from tests.workflow.snakemake_runs import ROOT, Study, copy_project

PAGE = (ROOT / "docs/how-to.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """A block of code under its heading; `file` is where it belongs, `after` the line that it follows there."""

    heading: str
    language: str
    code: str
    file: str | None
    after: str | None


def _blocks() -> Iterator[Block]:
    heading = ""
    pattern = (
        r"^## (?P<heading>[^\n]+)$|(?:^`(?P<file>[^`\n]+)`(?:, after `(?P<after>[^`\n]+)`)?:\n\n)?"
        r"^```(?P<language>\w+)\n(?P<code>.*?)^```$"
    )
    for found in re.finditer(pattern, PAGE, flags=re.DOTALL | re.MULTILINE):
        heading = found["heading"] or heading
        if found["code"] is not None:
            yield Block(heading, found["language"], found["code"], found["file"], found["after"])


BLOCKS = list(_blocks())


def _blocks_of(heading: str, language: str | None = None) -> list[Block]:
    return [block for block in BLOCKS if block.heading == heading and language in (None, block.language)]


def _merged(base: dict[str, Any], code: str) -> dict[str, Any]:
    update_config(base, yaml.safe_load(code))
    return base


def test_every_block_is_found() -> None:
    assert len(BLOCKS) * 2 == len(re.findall(r"^```", PAGE, flags=re.MULTILINE))


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=lambda one: one.heading)
def test_every_configuration_is_valid(block: Block, tmp_path: Path) -> None:
    default = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    (tmp_path / "path/to/folder-of-safetensors").mkdir(parents=True)
    validate(_merged(default, block.code), ROOT, tmp_path)


def test_a_scheme_is_an_entry_and_only_it_is_evaluated(study: Study) -> None:
    [block] = _blocks_of("Add a scheme", "yaml")
    [name] = yaml.safe_load(block.code)["schemes"]
    own = study.changed(lambda config: _merged(config, block.code))
    jobs = own.would_run()
    assert {job for job in jobs if job.startswith(("evaluate", "calibrate"))} == {f"evaluate tiny/{name}"}
    assert "report" in jobs


def _written(project: Path, blocks: list[Block]) -> None:
    """Put blocks where they belong: whole files, or behind a line and as far in as that line stands."""
    for block in blocks:
        assert block.file is not None
        path = project / block.file
        if block.after is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")
            continue
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        [place] = [place for place, line in enumerate(lines) if line.strip() == block.after]
        inwards = lines[place].removesuffix(lines[place].lstrip())
        lines[place + 1 : place + 1] = [inwards + line for line in block.code.splitlines(keepends=True)]
        path.write_text("".join(lines), encoding="utf-8")


def test_a_chapter_is_on_the_page_when_all_is_written(own_copy: Study, tmp_path: Path) -> None:
    copy_project(own_copy.place.project, tmp_path / "project")
    own = own_copy.with_project(tmp_path / "project")
    _written(tmp_path / "project", _blocks_of("Add a chapter"))
    assert own.would_run() == {"count_tokens tiny", "list_rules", "plot_rules", "report"}
    outcome = own.snakemake()
    assert outcome.status == 0, outcome.output
    page = (own.results / "report.html").read_text(encoding="utf-8")
    said = re.search(r"tiny makes ([\d.]+) \[[\d.]+, [\d.]+\] tokens of a word\.", page)
    assert said
    rows = pd.read_parquet(own.results / "tiny/fertility/texts.parquet")
    assert float(said[1]) == pytest.approx(rows["tokens"].sum() / rows["words"].sum(), abs=0.005)
