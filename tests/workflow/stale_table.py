"""The page of the documentation that lists what each change reruns, written from what the tests ask of dry runs.

`python -m tests.workflow.stale_table` writes it anew.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "what-reruns.md"
HEAD = """# What reruns: every change that is tested

Each row is a dry run that the tests make in a finished study (`test_stale.py` and `test_stale_models.py` in
`tests/workflow/`): after the change, exactly these jobs are announced, and no other. The study has all chapters, one
tiny model, a shape without weights and {schemes} schemes; made from nothing it has {all} jobs. This page is written
from what the tests expect (`python -m tests.workflow.stale_table`), and a test keeps it so. The rules behind it are in
[Architecture](architecture.md#what-reruns-when).
"""
COLUMNS = "| Change | Jobs | Rules that run again |\n|---|---|---|\n"


def _rules(jobs: Iterable[str]) -> str:
    """Rules by name, with the number of their jobs where there are several."""
    counts = Counter(job.split()[0] for job in jobs)
    return ", ".join(f"`{rule}`" + (f" ×{count}" if count > 1 else "") for rule, count in sorted(counts.items()))


def _rows(expected: Mapping[str, set[str]]) -> str:
    return "".join(f"| {what} | {len(jobs)} | {_rules(jobs) or 'none'} |\n" for what, jobs in expected.items())


def table() -> str:
    """The page as the tests of today want it."""
    from tests.workflow.snakemake_runs import SCHEMES
    from tests.workflow.test_stale import SCENARIOS, with_verdicts
    from tests.workflow.test_stale_models import OF_TWO

    one, two = (
        {what: with_verdicts(expected) for what, (_, expected) in scenarios.items()}
        for scenarios in (SCENARIOS, OF_TWO)
    )
    whole = len(one["the loss of all results but the page"])
    head = HEAD.format(schemes=len(SCHEMES), all=whole)
    middle = """
## One of two models

The same study with a second model. What befalls one model reruns its own jobs, the summaries of all models, and the
figures of the other model that are drawn from summaries: no job that measures another model. What is only named (a
scheme, a table, a trace, samples) is a file of it that was lost.

"""
    return f"{head}\n## One model\n\n{COLUMNS}{_rows(one)}{middle}{COLUMNS}{_rows(two)}"


if __name__ == "__main__":
    PAGE.write_text(table(), encoding="utf-8")
