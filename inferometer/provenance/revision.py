"""Which state of the workflow's own files draws the page."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Revision:
    """A git commit, and how many files of the workflow differ from it."""

    commit: str
    changed_files: int


def _git(root: Path, *arguments: str) -> str:
    """What git prints; empty where there is no git, no repository, or one that belongs to somebody else."""
    try:
        found = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout


def revision(root: Path) -> Revision | None:
    """The revision of the workflow in the folder `root`, or nothing where git keeps no record of just this folder.

    A copy of the workflow that lies inside of another repository must not pass for a commit of that one.
    """
    top = _git(root, "rev-parse", "--show-toplevel").strip()
    commit = _git(root, "rev-parse", "HEAD").strip()
    if not commit or Path(top).resolve() != root.resolve():
        return None
    return Revision(commit, len(_git(root, "status", "--porcelain").splitlines()))
