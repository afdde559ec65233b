"""Jobs on unlike machines: which kinds there are, and what readers of times are told."""

from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.capacity.tables import MACHINE
from inferometer.report.contents import contents
from inferometer.report.machines import differences, kinds
from inferometer.report.page import render
from inferometer.runs import RUN
from inferometer.tables import read_table, write_table
from tests.synthetic import MEASURED, study, write_results

TEMPLATES = Path(__file__).parents[2] / "report"
LARGE = {"device_name": "A large processor", "cores": 64, "torch_threads": 64, "memory_gib": 503.5}
SMALL = {"device_name": "A small processor", "cores": 2, "torch_threads": 2, "memory_gib": 8.0}


def runs(*jobs: tuple[str, str | None, dict[str, Any]]) -> pd.DataFrame:
    """Rows of a RUN table: the step, the scheme, and the machine."""
    own = {"model": "m", "device": "cpu", "features": "avx2", "system": "Linux", "python": "3", "torch": "2"}
    return pd.DataFrame([{**own, "transformers": "5", "step": s, "scheme": c, **on} for s, c, on in jobs])


def peaks(on: dict[str, Any]) -> pd.DataFrame:
    """What identifies the machine in a MACHINE table."""
    return pd.DataFrame([{"device": "cpu", "features": "avx2", **on}])


def test_nodes_that_are_alike_are_one_kind_and_the_kind_with_most_jobs_comes_first() -> None:
    alike = {**LARGE, "memory_gib": 503.6, "torch_threads": 1}
    table = runs(
        ("calibrate", None, SMALL), ("evaluate", "fp", LARGE), ("evaluate", "w8a8", alike), ("rotate", None, LARGE)
    )
    first, second = kinds(table)
    assert (first.machine.device_name, first.threads, first.memory) == (
        "A large processor",
        "1 to 64",
        "503.5 to 503.6",
    )
    assert first.jobs == "evaluate (fp, w8a8); rotate (m)"
    assert (second.machine.cores, second.memory, second.jobs) == (2, "8", "calibrate (m)")
    newer = table.assign(torch=["1", "2", "2", "2"], device_name="one")
    assert len(kinds(newer)) == 2


def test_differences_are_said_and_only_where_there_are_any() -> None:
    alike = runs(("evaluate", "fp", LARGE), ("profile_latency", None, LARGE))
    assert differences(alike, peaks(LARGE)) == []
    assert differences(alike, peaks(LARGE).head(0)) == []
    [said] = differences(runs(("evaluate", "fp", LARGE), ("evaluate", "w8a8", SMALL)), peaks(LARGE))
    assert said.startswith("The jobs ran on 2 kinds of machine")
    [said] = differences(alike, peaks(SMALL))
    assert said == (
        "The peaks were measured on another kind of machine than the times of m, which therefore can't be held against "
        "the roofline."
    )


def test_a_page_of_two_kinds_of_machine_says_so_at_the_top_beside_the_times_and_in_a_table(tmp_path: Path) -> None:
    config = study(schemes=("fp", "w8a8"))
    write_results(config, tmp_path)

    def drawn() -> str:
        context = contents(config, tmp_path, TEMPLATES / "reported.yaml")
        render(TEMPLATES, tmp_path / "page.html", context)
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    assert "kinds of machine" not in drawn()
    file = tmp_path / "summary/runs.parquet"
    table = read_table(RUN, file)
    slow = table["scheme"] == "w8a8"
    write_table(RUN, table.assign(device_name=table["device_name"].mask(slow, "A small processor")), file)
    page = drawn()
    assert page.count("The jobs ran on 2 kinds of machine, or with different versions") == 3
    assert "Kinds of machine that jobs ran on" in page
    assert "A small processor (cpu)" in page
    assert "evaluate (w8a8)" in page
    machine = tmp_path / "machine.parquet"
    write_table(MACHINE, read_table(MACHINE, machine).assign(cores=999), machine)
    latency = table.head(1).assign(step="profile_latency")
    write_table(RUN, pd.concat([table, latency]), file)
    assert f"another kind of machine than the times of {MEASURED}" in drawn()
