"""A full disk under everything that is written: no half file has its final name, and the next call goes on."""

import os

import pytest

from tests.workflow.processes import no_mounts
from tests.workflow.snakemake_runs import Study

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study

# The results move to a small disk for the time of the call, and what is left of them comes back.
ON_A_FULL_DISK = """
    room="$1"; results="$2"; shift 2
    mv "$results" "$results.before" && mkdir "$results" || exit 99
    mount -t tmpfs -o size=1g tmpfs "$results" && cp -a "$results.before/." "$results" || exit 99
    used=$(df --block-size=1 --output=used "$results" | tail -n 1)
    mount -o remount,size=$((used + room)) "$results" || exit 99
    "$@"; status=$?
    cp -a "$results" "$results.after" || exit 99
    umount "$results" && rmdir "$results" && mv "$results.after" "$results"
    exit $status
"""
# One of each kind of writer: tables, CSV, figures as SVG and PNG, tensors, hidden states among tables.
LOST = {
    "results/tiny/evaluation/fp/hidden.safetensors": "evaluate_reference",
    "results/sources/images/optdigits.safetensors": "fetch_images",
    "results/tiny/calibration/distributions.svg": "plot_distributions",
    "results/tiny/calibration/surfaces-weight.png": "plot_surfaces",
    "results/capacity/requests.parquet": "predict_capacity",
    "results/summary/ranges.csv": "summarize_ranges",
}
LARGE = ("results/sources/images/optdigits.safetensors", "results/tiny/calibration/surfaces-weight.png")
PAGE = "results/report.html"


def contents(study: Study) -> dict[str, bytes]:
    """The results but for what Snakemake and logging write of each job."""
    paths = (path for path in study.results.rglob("*") if path.is_file())
    named = {str(path.relative_to(study.folder)): path for path in paths}
    skipped = ("results/logs/", "results/benchmarks/")
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith(skipped)}


def wrapper(study: Study, pages: int) -> list[str]:
    room = pages * os.sysconf("SC_PAGE_SIZE")
    return ["unshare", "-rm", "sh", "-c", ON_A_FULL_DISK, "sh", str(room), str(study.results)]


@pytest.mark.parametrize("pages", [0, 4], ids=["not even a log", "less than a result"])
def test_on_a_full_disk_nothing_half_written_has_its_name_and_the_next_call_goes_on(
    own_copy: Study, pages: int
) -> None:
    if reason := no_mounts():
        pytest.skip(reason)
    before = contents(own_copy)
    for name in LOST:
        (own_copy.folder / name).unlink()
    outcome = own_copy.snakemake("--keep-going", targets=list(LOST), wrapper=wrapper(own_copy, pages))
    assert outcome.status == 1, outcome.output
    assert "Traceback" not in outcome.output
    failed = [name for name in LOST if not (own_copy.folder / name).exists()]
    for name in failed:
        assert f"Error in rule {LOST[name]}:" in outcome.output
    for name in LARGE:
        assert name in failed
        assert f"cannot write {name}: " in outcome.sentence
    assert "No space left on device; nothing was kept." in outcome.sentence
    after = contents(own_copy)
    whole = {name for name, content in after.items() if before.get(name) == content}
    assert {name for name in after.keys() - whole if not name.endswith("run.parquet")} == set()
    again = own_copy.snakemake(targets=list(LOST))
    assert again.status == 0, again.output
    assert {name: (own_copy.folder / name).read_bytes() for name in LOST} == {name: before[name] for name in LOST}


def test_a_page_that_does_not_fit_is_named_and_not_written(own_copy: Study) -> None:
    if reason := no_mounts():
        pytest.skip(reason)
    (own_copy.folder / PAGE).unlink()
    outcome = own_copy.snakemake(targets=[PAGE], wrapper=wrapper(own_copy, 20))
    assert outcome.status == 1, outcome.output
    assert f"cannot write {PAGE}: No space left on device; nothing was kept." in outcome.sentence
    assert "Traceback" not in outcome.output
    assert not (own_copy.folder / PAGE).exists()
    assert not list(own_copy.results.rglob("*.partial"))
