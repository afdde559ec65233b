"""Jobs that begin with a model open: as good as jobs that open it, and gone with whoever they work for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from inferometer import keeper
from inferometer.jobs import CALLER
from inferometer.sources.checkpoints import fetch_checkpoint
from tests.tiny import tiny_checkpoint

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs a system that says when a process ends"),
    pytest.mark.timeout(300),
]

PATIENCE_S = 60
SCRIPT = """
import sys
from inferometer.keeper import hand_over
folder, output, *rest = sys.argv[1:]
hand_over(f"{folder}/model.json", f"{folder}/checkpoint", "cpu", "auto")

import os, time
from pathlib import Path
import torch
from inferometer.device import choose_device
from inferometer.files import whole_file
from inferometer.manifest import Manifest
from inferometer.models import load_model

device = choose_device("cpu")
model = load_model(Manifest.read(Path(folder, "model.json")), Path(folder, "checkpoint"), device)
tokens = torch.arange(60)[None].repeat(30, 1)
logits = model(tokens).logits
with torch.no_grad():
    model.get_output_embeddings().weight.zero_()  # no other job may see this
with whole_file(Path(output)) as partial:
    partial.write_bytes(logits.numpy().tobytes())
    print(os.getpid(), torch.get_num_threads(), flush=True)
    if "wait" in rest:
        Path(output + ".begun").touch()
        time.sleep(600)
if "fail" in rest:
    sys.exit("the key `thing` is wrong; mend it.")
if "break" in rest:
    raise RuntimeError("a fault")
"""


@dataclass
class Call:
    """Something that calls jobs, as Snakemake does, in a folder that holds a model and the jobs' script."""

    folder: Path
    caller: subprocess.Popen[bytes]

    def job(self, output: str, *more: str, called: bool = True) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name != CALLER}
        if called:
            environment[CALLER] = str(self.caller.pid)
        command = [sys.executable, str(self.folder / "job.py"), str(self.folder), str(self.folder / output), *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, output: str, *more: str, called: bool = True) -> tuple[int, str, str]:
        job = self.job(output, *more, called=called)
        out, err = job.communicate(timeout=PATIENCE_S)
        return job.returncode, out, err

    def others(self) -> list[psutil.Process]:
        """Every process of the script that nobody waits for: the keeper and its copies."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.folder / "job.py") in process.cmdline() and process.ppid() != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    entry = {"source": "local", "path": str(tiny_checkpoint(tmp_path / "given"))}
    fetch_checkpoint("tiny", entry, tmp_path / "checkpoint").write(tmp_path / "model.json")
    (tmp_path / "job.py").write_text(SCRIPT, encoding="utf-8")
    caller = subprocess.Popen(["sleep", "600"])
    own = Call(tmp_path, caller)
    yield own
    caller.kill()
    caller.wait()
    until(lambda: not own.others())


def until(met: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_job_that_finds_the_model_open_does_what_one_does_that_opens_it(call: Call) -> None:
    status, alone, _ = call.run("alone", called=False)
    assert status == 0
    assert call.run("first")[0] == 0
    (call.folder / "checkpoint" / "model.safetensors").unlink()
    status, out, err = call.run("second")
    assert (status, err) == (0, ""), "the model was open already"
    assert alone.split()[1] == out.split()[1], "both compute on all cores"
    expected = (call.folder / "alone").read_bytes()
    assert len(expected) == 30 * 60 * 64 * 4
    assert (call.folder / "first").read_bytes() == (call.folder / "second").read_bytes() == expected
    status, _, err = call.run("third", called=False)
    assert status == 1, "who opens it does miss it"


def test_a_job_ends_as_its_script_does(call: Call) -> None:
    assert call.run("fails", "fail")[::2] == (1, "the key `thing` is wrong; mend it.\n")
    status, _, err = call.run("breaks", "break")
    assert status == 1
    assert err.startswith("Traceback")
    assert err.endswith("RuntimeError: a fault\n")


def test_what_a_job_cannot_write_is_said_by_its_script(call: Call) -> None:
    (call.folder / "folder" / "in the way").mkdir(parents=True)
    status, _, err = call.run("folder")
    assert status == 1
    assert f"cannot write {call.folder / 'folder'}: Is a directory; nothing was kept." in err
    assert not list(call.folder.glob(".*.partial"))


def test_what_works_for_a_killed_job_ends_and_publishes_nothing(call: Call) -> None:
    job = call.job("killed", "wait")
    until((call.folder / "killed.begun").exists)
    copies = call.others()
    job.kill()
    job.communicate()
    until(lambda: len(call.others()) == 1)
    assert len(copies) == 2
    assert not (call.folder / "killed").exists()
    assert call.run("next")[0] == 0


def test_a_job_whose_copy_is_killed_says_so_and_the_next_goes_on(call: Call) -> None:
    job = call.job("killed", "wait")
    until((call.folder / "killed.begun").exists)
    assert job.stdout is not None
    os.kill(int(job.stdout.readline().split()[0]), signal.SIGKILL)
    _, err = job.communicate(timeout=PATIENCE_S)
    assert (job.returncode, err.count("\n")) == (1, 1)
    assert "killed from outside" in err
    assert not (call.folder / "killed").exists()
    assert call.run("next")[0] == 0


def test_where_the_keeper_was_killed_the_next_job_starts_another(call: Call) -> None:
    assert call.run("one")[0] == 0
    [own] = call.others()
    own.kill()
    own.wait(PATIENCE_S)
    assert call.run("other")[0] == 0
    assert len(call.others()) == 1


def test_jobs_side_by_side_share_one_keeper(call: Call) -> None:
    jobs = [call.job(f"output {number}") for number in range(5)]
    assert [job.wait(PATIENCE_S) for job in jobs] == [0] * 5
    for job in jobs:
        job.communicate()
    assert len({(call.folder / f"output {number}").read_bytes() for number in range(5)}) == 1
    assert len(call.others()) == 1


def test_keeper_and_copies_end_with_who_called(call: Call) -> None:
    job = call.job("late", "wait")
    until((call.folder / "late.begun").exists)
    call.caller.kill()
    call.caller.wait()
    job.communicate(timeout=PATIENCE_S)
    until(lambda: not call.others())
    assert job.returncode == -signal.SIGKILL
    assert not (call.folder / "late").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_can_neither_keep_nor_ask(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call.run("one")[0] == 0
    monkeypatch.setenv(CALLER, str(call.caller.pid))
    address = keeper._address()
    user = [sys.executable, "-c", "import os, socket, sys, time; os.setuid(65534); own = socket.socket(socket.AF_UNIX)"]
    ask = f"{user[2]}; own.connect({address!r}); sys.exit(own.recv(1) != b'')"
    assert subprocess.run([*user[:2], ask], check=False).returncode == 0, "hung up on"
    [own] = call.others()
    own.kill()
    own.wait(PATIENCE_S)
    listen = f"{user[2]}; own.bind({address!r}); own.listen(); print(flush=True); time.sleep(600)"
    with subprocess.Popen([*user[:2], listen], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            assert call.run("alone")[0] == 0
            assert not call.others()
        finally:
            other.kill()


def test_where_a_gpu_may_be_used_jobs_open_the_model_themselves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(keeper, "GPU_DRIVERS", (str(tmp_path),))
    monkeypatch.setattr(keeper, "_connected", lambda _: pytest.fail("a fork can't take a GPU along"))
    monkeypatch.setenv(CALLER, str(os.getpid()))
    keeper.hand_over("manifest", "checkpoint", "auto", "auto")
    keeper.hand_over("manifest", "checkpoint", "cuda", "auto")
    monkeypatch.delenv(CALLER)
    keeper.hand_over("manifest", "checkpoint", "cpu", "auto")


def test_a_copy_that_can_not_begin_ends_and_the_job_says_so(call: Call) -> None:
    """A folder that is gone when the copy goes there: neither a second keeper nor a second job is left."""
    gone = call.folder / "gone"
    gone.mkdir()
    script = f"import os, runpy, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); sys.argv = sys.argv[1:]; "
    script += "import pathlib; pathlib.Path.cwd = lambda: " + repr(str(gone)) + "; runpy.run_path(sys.argv[0])"
    command = [sys.executable, "-c", script, str(call.folder / "job.py"), str(call.folder), str(call.folder / "output")]
    done = subprocess.run(command, env={**os.environ, CALLER: str(call.caller.pid)}, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"killed from outside" in done.stderr
    assert not (call.folder / "output").exists()
    until(lambda: len(call.others()) <= 1)
    assert call.run("next")[0] == 0
