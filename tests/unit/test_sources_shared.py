"""What studies share: prepared once however many ask at once, verified each time, whole or absent."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inferometer.errors import InferometerError
from inferometer.sources.shared import DIGESTS, VARIABLE, prepare
from tests.workflow.processes import no_mounts, wait_for

ROOT = Path(__file__).resolve().parents[2]
ENTRY = {"source": "hub", "id": "somebody/something"}
ASKING = """
import sys, time
from pathlib import Path
from inferometer.sources.shared import prepare

study, notes, blocks = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "blocks"

def make(table, folder):
    with notes.open("a") as lines:
        lines.write("made\\n")
    folder.mkdir()
    (folder / "weights").write_bytes(b"w" * 1000)
    while blocks:
        time.sleep(0.01)
    time.sleep(0.3)  # so that others come meanwhile
    table.write_text("texts")

prepare("mine", {"source": "hub", "id": "somebody/something"}, [], "v1", [study / "table", study / "folder"], make)
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty shared folder, which the environment names."""
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


@pytest.fixture
def asking(tmp_path: Path, shared: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start a process that asks for two outputs in a study of its own; none outlives the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(study: str, *, blocks: bool = False) -> "subprocess.Popen[bytes]":
        (tmp_path / study).mkdir(exist_ok=True)
        command = [sys.executable, "-c", ASKING, str(tmp_path / study), str(tmp_path / "notes")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen([*command, "blocks" if blocks else ""], env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def held(study: Path) -> tuple[str, bytes]:
    """What a study got."""
    return (study / "table").read_text(), (study / "folder" / "weights").read_bytes()


def the_entry(shared: Path) -> Path:
    """The one entry of a shared folder, beside which nothing but its lock lies."""
    [entry] = [path for path in shared.iterdir() if path.suffix != ".lock"]
    return entry


WHOLE = ("texts", b"w" * 1000)


def test_many_who_ask_at_once_have_it_made_once(
    asking: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path, shared: Path
) -> None:
    studies = [f"study-{number}" for number in range(4)]
    for process in [asking(study) for study in studies]:
        assert process.wait(120) == 0
    assert (tmp_path / "notes").read_text() == "made\n"
    assert [held(tmp_path / study) for study in studies] == [WHOLE] * 4
    assert {(tmp_path / study / "folder" / "weights").resolve() for study in studies} == {
        the_entry(shared) / "folder" / "weights"
    }


def test_who_is_killed_while_making_leaves_no_entry_and_the_next_makes_it_whole(
    asking: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path, shared: Path
) -> None:
    first = asking("first", blocks=True)
    wait_for(lambda: next(shared.glob(".*/folder/weights"), None))
    second = asking("second")
    first.send_signal(signal.SIGKILL)
    assert first.wait(60) == -signal.SIGKILL
    assert second.wait(120) == 0
    assert held(tmp_path / "second") == WHOLE
    assert list((tmp_path / "first").iterdir()) == []
    assert the_entry(shared).joinpath(DIGESTS).is_file()
    assert (tmp_path / "notes").read_text() == "made\nmade\n"


def ask(study: Path, *, code: str = "v1", files: tuple[str, ...] = (), entry: dict[str, str] = ENTRY) -> int:
    """Ask in this process for two outputs; returns how often they were made."""
    made = []

    def make(table: Path, folder: Path) -> None:
        made.append(table)
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(WHOLE[1])
        table.write_text(WHOLE[0])

    study.mkdir(exist_ok=True)
    prepare("mine", entry, files, code, [study / "table", study / "folder"], make)
    assert held(study) == WHOLE
    return len(made)


def flip(path: Path) -> None:
    """Turn over one bit."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["folder/weights", "table", DIGESTS])
@pytest.mark.parametrize(
    "damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")], ids=["bit", "lost", "empty"]
)
def test_whatever_is_damaged_is_found_said_and_mended(
    shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, part: str, damage: Callable[[Path], object]
) -> None:
    assert ask(tmp_path / "first") == 1
    (the_entry(shared) / part).chmod(0o644)
    damage(the_entry(shared) / part)
    assert ask(tmp_path / "second") == 1
    assert "damaged in the shared folder, so it is made anew" in caplog.text
    assert held(tmp_path / "first") == WHOLE  # whose links lead to the same place
    assert ask(tmp_path / "third") == 0


def test_a_file_more_is_damage_too(shared: Path, tmp_path: Path) -> None:
    ask(tmp_path / "first")
    (the_entry(shared) / "folder" / "pickled.bin").write_bytes(b"")
    assert ask(tmp_path / "second") == 1
    assert [path.name for path in (tmp_path / "second" / "folder").iterdir()] == ["weights"]


def test_other_code_other_files_and_other_entries_share_nothing(shared: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("one")
    assert ask(tmp_path / "a") == 1
    assert ask(tmp_path / "b", code="v2") == 1
    assert ask(tmp_path / "c", entry={**ENTRY, "id": "somebody/else"}) == 1
    assert ask(tmp_path / "d", files=(str(text),)) == 1
    assert ask(tmp_path / "d", files=(str(text),)) == 0
    text.write_text("two")
    assert ask(tmp_path / "d", files=(str(text),)) == 1


def test_links_into_a_users_own_cache_become_files(shared: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_bytes(b"weights")

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "weights").symlink_to(own)

    prepare("mine", ENTRY, [], "v1", [tmp_path / "study" / "folder"], make)
    own.unlink()
    assert (tmp_path / "study" / "folder" / "weights").read_bytes() == b"weights"
    assert json.loads((the_entry(shared) / DIGESTS).read_text()).keys() == {"folder/weights"}


@pytest.mark.parametrize("entry", [{"source": "architecture"}, {"source": "local", "path": "."}])
def test_what_needs_no_preparation_is_not_shared(shared: Path, tmp_path: Path, entry: dict[str, str]) -> None:
    assert ask(tmp_path / "study", entry=entry) == 1
    assert list(shared.iterdir()) == []


def test_without_the_variable_nothing_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert ask(tmp_path / "first") == ask(tmp_path / "second") == 1
    assert not (tmp_path / "first" / "folder" / "weights").is_symlink()


def test_a_variable_that_names_no_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(InferometerError, match=r"INFEROMETER_SHARED names .*absent, which is not a folder; make it"):
        ask(tmp_path / "study")


def test_who_may_only_read_takes_what_is_sound_and_makes_the_rest_alone(
    asking: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path, shared: Path
) -> None:
    if reason := no_mounts():
        pytest.skip(reason)
    assert asking("first").wait(120) == 0
    notes = tmp_path / "notes"
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99; shift; exec "$@"'

    def ask_read_only(study: str) -> None:
        (tmp_path / study).mkdir()
        command = [sys.executable, "-c", ASKING, str(tmp_path / study), str(notes), ""]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        wrapper = ["unshare", "-rm", "sh", "-c", script, "sh", str(shared)]
        assert subprocess.run([*wrapper, *command], env=environment, check=False, timeout=120).returncode == 0
        assert held(tmp_path / study) == WHOLE

    ask_read_only("second")
    assert notes.read_text() == "made\n"
    flip(the_entry(shared) / "folder" / "weights")
    ask_read_only("third")
    assert notes.read_text() == "made\nmade\n"
    assert not (tmp_path / "third" / "folder" / "weights").is_symlink()
