"""Schemes that run out of memory: the run ends with a sentence, or goes on without them to its page when asked to."""

import re
import shutil
from pathlib import Path

import pytest

from inferometer.claims.tables import CLAIMS
from inferometer.evaluation.tables import GAINS, PERPLEXITY, SCHEMES
from inferometer.tables import read_table
from tests.workflow.snakemake_runs import ROTATED, SEARCHED, Study, copy_project, setting
from tests.workflow.snakemake_runs import SCHEMES as STUDY_SCHEMES

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study

HUNGRY = (SEARCHED, ROTATED)
MEMORY_BYTES = 4 << 30  # what each process may take: enough for anything but a hoard
WRAPPER = ("prlimit", f"--data={MEMORY_BYTES}")
ASKING = '    if files.get("scales"):\n'
HOARDING = f"    if scheme.name in {HUNGRY!r}:\n        hoard = [torch.ones(1 << 26) for _ in range(1 << 10)]\n"


@pytest.fixture
def hungry(own_copy: Study, tmp_path: Path) -> Study:
    """A finished study of which two schemes are to be evaluated again, by code that takes all memory for these two."""
    if shutil.which("prlimit") is None:
        pytest.skip("there is no command prlimit")
    project = tmp_path / "project"
    copy_project(own_copy.place.project, project)
    code = project / "inferometer" / "preparation.py"
    text = code.read_text(encoding="utf-8")
    assert ASKING in text
    code.write_text(f"import torch\n{text.replace(ASKING, HOARDING + ASKING)}", encoding="utf-8")
    for scheme in HUNGRY:
        shutil.rmtree(own_copy.results / "tiny" / "evaluation" / scheme)
    return own_copy.with_project(project)


def test_a_scheme_without_enough_memory_ends_the_run_with_a_sentence(hungry: Study) -> None:
    target = f"results/tiny/evaluation/{ROTATED}/storage.parquet"
    outcome = hungry.snakemake("--rerun-triggers", "mtime", targets=[target], wrapper=WRAPPER)
    assert outcome.status == 1
    assert re.search(
        f"tiny under {ROTATED}: not enough memory \\(.+tried to allocate 268435456 bytes", outcome.sentence
    )
    assert "or set `study.keep_going` to true, so that the others go on." in outcome.sentence
    assert "Traceback" not in outcome.output
    assert not (hungry.folder / target).exists()


def test_a_study_that_keeps_going_reports_them_as_failed_and_goes_on_to_its_page(hungry: Study) -> None:
    before = read_table(SCHEMES, hungry.results / "summary/schemes.parquet").set_index("scheme")
    going = hungry.changed(setting(True, "study", "keep_going"))
    outcome = going.snakemake("--rerun-triggers", "mtime", wrapper=WRAPPER)
    assert {f"evaluate tiny/{scheme}" for scheme in HUNGRY} | {"report"} <= outcome.jobs
    rows = read_table(SCHEMES, hungry.results / "summary/schemes.parquet").set_index("scheme")
    assert set(rows.index) == set(STUDY_SCHEMES)
    others = [scheme for scheme in STUDY_SCHEMES if scheme not in HUNGRY]
    assert rows.loc[others].equals(before.loc[others])
    page = (hungry.results / "report.html").read_text(encoding="utf-8")
    for scheme in HUNGRY:
        assert str(rows.loc[scheme, "skipped"]).startswith("not enough memory (")
        assert rows.loc[scheme, ["perplexity", "ratio", "kl_divergence", "accuracy"]].isna().all()
        assert f"{scheme} could not be run: not enough memory (" in page
    scored = read_table(PERPLEXITY, hungry.results / "summary/perplexity.parquet")["scheme"]
    assert not set(scored) & set(HUNGRY)
    assert SEARCHED not in set(read_table(GAINS, hungry.results / "summary/gains.parquet")["scheme"])
    claims = read_table(CLAIMS, hungry.results / "claims.parquet")
    assert claims[claims["verdict"] == "failed"]["reason"].tolist() == []
    again = going.snakemake("--rerun-triggers", "mtime")
    assert again.jobs == set()
