"""Files are whole or absent, whatever goes wrong, and digests are those that others compute."""

import errno
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from inferometer.errors import InferometerError
from inferometer.files import git_blob_sha1_of, sha256_of, verify_sha256, whole_file, whole_folder

Writer = Callable[[Path], AbstractContextManager[Path]]

SMALL_DISK_KIB = 128
WRITES = '''
    """Writes a table, weights and a figure too large for the folder given, after small ones that fit."""
    import sys
    from pathlib import Path

    import matplotlib.image
    import numpy as np
    import pandas as pd
    from safetensors.numpy import save_file

    from inferometer.errors import InferometerError
    from inferometer.files import whole_file, whole_folder
    from inferometer.tables import Column, Table, write_table

    root = Path(sys.argv[1])
    table = Table("numbers", "numbers", (Column("number", "int64", "a number"),), ("number",))
    generator = np.random.default_rng(0)


    def write(size: int) -> None:
        numbers = generator.choice(2**62, size, replace=False)
        for job in (write_rows, write_weights, write_figure):
            try:
                job(numbers)
            except InferometerError as error:
                print(error)


    def write_rows(numbers: np.ndarray) -> None:
        write_table(table, pd.DataFrame({"number": numbers}), root / "rows" / "numbers.parquet")


    def write_weights(numbers: np.ndarray) -> None:
        with whole_folder(root / "weights") as folder:
            (folder / "config.json").write_text("{}")
            save_file({"numbers": numbers}, folder / "model.safetensors")


    def write_figure(numbers: np.ndarray) -> None:
        side = int(numbers.size ** 0.5)
        with whole_file(root / "figure.png") as partial:
            matplotlib.image.imsave(partial, (numbers[: side**2] % 256).reshape(side, side), format="png")


    def content() -> dict[Path, bytes]:
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


    write(100)
    before = content()
    names = ["figure.png", "rows/numbers.parquet", "weights/config.json", "weights/model.safetensors"]
    assert sorted(map(str, before)) == names, before.keys()
    print("small ones are written")
    write(100_000)
    assert content() == before, content().keys()
'''


def _write_too_much(folder: Path, *prefix: str, limit: Callable[[], None] | None = None) -> list[str]:
    """Run WRITES for a folder, and return the lines that it prints about what did not fit."""
    command = [*prefix, sys.executable, "-c", textwrap.dedent(WRITES), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit, timeout=60)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == "small ones are written"
    return rest


def _assert_three_sentences(lines: list[str], reason: str) -> None:
    assert len(lines) == 3
    for line, name in zip(lines, ("rows/numbers.parquet", "weights", "figure.png"), strict=True):
        assert line.startswith("cannot write ")
        assert f"{name}: " in line
        assert reason in line
        assert line.endswith("; nothing was kept.")


def test_a_file_size_limit_ends_in_one_sentence_and_keeps_what_was_there(tmp_path: Path) -> None:
    limit = SMALL_DISK_KIB * 1024
    lines = _write_too_much(tmp_path, limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _assert_three_sentences(lines, os.strerror(errno.EFBIG))


def test_a_full_disk_ends_in_one_sentence_and_keeps_what_was_there(tmp_path: Path) -> None:
    namespace = ["unshare", "--mount", "--map-root-user"]
    mount = 'mount -t tmpfs -o size="$1" none "$0"'
    if shutil.which("unshare") is None:
        pytest.skip("needs `unshare` (Linux) to mount a small disk")
    probe = subprocess.run([*namespace, "sh", "-c", mount, tmp_path, "64k"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"this system does not let users mount a small disk: {probe.stderr.decode().strip()}")
    inside = [
        *namespace,
        "sh",
        "-c",
        f'{mount} && folder="$0" && shift && exec "$@"',
        str(tmp_path),
        f"{SMALL_DISK_KIB}k",
    ]
    lines = _write_too_much(tmp_path, *inside)
    _assert_three_sentences(lines, os.strerror(errno.ENOSPC))


def _fill(partial: Path, text: str = "new") -> None:
    """Write into a path as whole_file or whole_folder yields it."""
    (partial / "content" if partial.is_dir() else partial).write_text(text)


def _read(path: Path) -> str:
    return (path / "content" if path.is_dir() else path).read_text()


def _fail(writer: Writer, path: Path, fault: Callable[[], object]) -> None:
    """Write half of something to a path and then run into a fault."""
    with writer(path) as partial:
        _fill(partial, "half")
        fault()


def _raise(fault: BaseException) -> None:
    raise fault


@pytest.mark.parametrize("writer", [whole_file, whole_folder])
@pytest.mark.parametrize("fault", [ValueError("of the program"), KeyboardInterrupt(), SystemExit(1)])
def test_an_exception_passes_through_and_leaves_nothing(tmp_path: Path, writer: Writer, fault: BaseException) -> None:
    with pytest.raises(type(fault)):
        _fail(writer, tmp_path / "result", lambda: _raise(fault))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", [whole_file, whole_folder])
def test_a_failed_write_keeps_the_old_content(tmp_path: Path, writer: Writer) -> None:
    path = tmp_path / "result"
    with writer(path) as partial:
        _fill(partial, "old")
    with pytest.raises(ValueError, match="of the program"):
        _fail(writer, path, lambda: _raise(ValueError("of the program")))
    assert _read(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", [whole_file, whole_folder])
def test_success_replaces_the_old_content_and_makes_the_folders_on_the_way(tmp_path: Path, writer: Writer) -> None:
    path = tmp_path / "a" / "b" / "result"
    for text in ("old", "new"):
        with writer(path) as partial:
            assert partial.parent == path.parent, "a rename is atomic on one file system only"
            _fill(partial, text)
            assert not path.exists() or _read(path) == "old"
        assert _read(path) == text
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.mkdir()
    (path / "stale").touch()
    with whole_folder(path) as partial:
        _fill(partial)
    assert [file.name for file in path.iterdir()] == ["content"]


def test_a_block_that_writes_no_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "result"
    with pytest.raises(InferometerError, match=r"cannot write .*result: No such file"), whole_file(path):
        pass


@pytest.mark.parametrize("writer", [whole_file, whole_folder])
def test_another_file_at_fault_is_named(tmp_path: Path, writer: Writer) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(InferometerError, match=r"write .*result: No such file or directory \(.*absent\)"):
        _fail(writer, tmp_path / "result", absent.read_text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", [whole_file, whole_folder])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, writer: Writer) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InferometerError, match=r"cannot write .*file/result: .*; nothing was kept"):
        _fail(writer, tmp_path / "file" / "result", lambda: pytest.fail("never reached"))
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("writer", ["whole_file", "whole_folder"])
def test_a_killed_job_leaves_the_old_content_under_its_name(tmp_path: Path, writer: str) -> None:
    path, half = tmp_path / "result", tmp_path / "half written"
    with {"whole_file": whole_file, "whole_folder": whole_folder}[writer](path) as partial:
        _fill(partial, "old")
    script = f"""
        import sys, time
        from pathlib import Path
        from inferometer.files import {writer}
        with {writer}(Path(sys.argv[1])) as partial:
            (partial / "content" if partial.is_dir() else partial).write_text("half")
            Path(sys.argv[2]).touch()
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), path, half])
    try:
        while not half.exists():
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert _read(path) == "old"
    assert len(list(tmp_path.glob(".result.*.partial"))) == 1
    with {"whole_file": whole_file, "whole_folder": whole_folder}[writer](path) as partial:
        _fill(partial, "new")
    assert _read(path) == "new"
    assert set(tmp_path.iterdir()) == {path, half}


# The sizes lie around that of the chunks in which large files are read.
@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_digests_are_those_of_git_and_hashlib(tmp_path: Path, size: int) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(index % 251 for index in range(1000)) * (size // 1000) + b"x" * (size % 1000))
    assert path.stat().st_size == size
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    git = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True)
    assert git_blob_sha1_of(path) == git.stdout.strip()


def test_a_wrong_pin_names_the_file_and_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_text("content")
    verify_sha256(path, sha256_of(path), "the blob")
    with pytest.raises(InferometerError) as caught:
        verify_sha256(path, "0" * 64, "the blob")
    for part in ("the blob", "0" * 64, sha256_of(path), "pin"):
        assert part in str(caught.value)
