"""Jobs that begin with a model open: they run as copies of one process of the call that opened it.

To import torch and transformers and to load a small model takes longer than much of what a job does with it. So the
first such job of a call starts a keeper, which imports them, opens the model and waits; every job, the first one too,
hands its script to the keeper, which forks. The copy does the job as the job itself would: with its script, folder,
environment and output, and memory that is its own as soon as it is written to, so that no job sees another's work.

The files that a copy makes get their names by the job, and a copy whose job has ended ends as well: what was killed
publishes nothing. The keeper ends with its Snakemake. A fork can't take a GPU along, so none of this happens where a
job may use one, nor where a system can't say when a process ends; the job then opens its model itself.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from inferometer import files
from inferometer.jobs import CALLER, end_with_caller

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")  # NVIDIA, its Jetson, Windows' Linux, AMD
NAMESPACES = ("pid", "mnt", "user")  # what a process id and a path mean
QUEUE = 64
OUTPUTS = (1, 2)  # descriptors of standard output and standard error

_Message = dict[str, Any]
_is_copy = False  # whether this process does the work of a job that another one is


class _Channel:
    """Messages over a socket between processes of one user; the other end's death ends them."""

    def __init__(self, own: socket.socket) -> None:
        """Raises ConnectionError when the other end is another user's process."""
        self.socket = own
        _, user, _ = struct.unpack("3i", own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        if user != os.getuid():
            raise ConnectionError
        self._lines = own.makefile("r", encoding="utf-8")

    def send(self, message: _Message) -> None:
        """Raises OSError when the other end is gone."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> _Message | None:
        """The next message, or None when the other end is gone."""
        line = self._lines.readline()
        message: _Message | None = json.loads(line) if line.endswith("\n") else None
        return message

    def close(self) -> None:
        """Hang up, in this process."""
        self._lines.close()
        self.socket.close()


def _caller() -> int | None:
    """A descriptor of the Snakemake that called, or None where there is none or the system has no such thing."""
    try:
        return os.pidfd_open(int(os.environ[CALLER]))
    except (AttributeError, KeyError, OSError):
        return None


def _address() -> str:
    """Where the keeper of this call listens: a name without a file, of which nothing is left when it ends."""
    means = [str(Path("/proc/self/ns", kind).readlink()) for kind in NAMESPACES]
    call = [*means, str(os.getuid()), os.environ[CALLER], sys.executable, __file__]
    return f"\0inferometer-{sha256('|'.join(call).encode(errors='surrogateescape')).hexdigest()}"


def _connection(address: str) -> _Channel:
    own = socket.socket(socket.AF_UNIX)
    try:
        own.connect(address)
        return _Channel(own)
    except OSError:
        own.close()
        raise


def _connected(caller: int) -> _Channel:
    """A channel to the keeper, which is started where there is none. Raises OSError when it can't be had."""
    address = _address()
    with suppress(ConnectionRefusedError):
        return _connection(address)
    with socket.socket(socket.AF_UNIX) as listener:
        with suppress(OSError):  # another job was quicker
            listener.bind(address)
            listener.listen(QUEUE)
            _start(listener, caller)
        return _connection(address)


def _start(listener: socket.socket, caller: int) -> None:
    """Leave a keeper behind: a child of a child, so that nobody waits for it."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    elif os.fork():
        os._exit(0)
    else:
        try:
            _keep(listener, caller)
        finally:  # whatever went wrong, the job's script is not the keeper's to go on with
            os._exit(1)


def _keep(listener: socket.socket, caller: int) -> NoReturn:
    """What the keeper does, until its caller ends."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, *OUTPUTS):
        os.dup2(nothing, descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what an interrupt ends
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a copy ended
    while caller not in select.select([listener.fileno(), caller], [], [])[0]:
        with suppress(OSError):  # who asked is another user's process, or was killed just now
            _answer(listener)
    os._exit(0)


def _answer(listener: socket.socket) -> None:
    """Fork a copy for the job that is the next to ask for one."""
    connection, _ = listener.accept()
    with connection, closing(_Channel(connection)) as channel:
        _, outputs, _, _ = socket.recv_fds(connection, 1, len(OUTPUTS))
        request = channel.receive()
        if request:
            _open(request)
            if not os.fork():
                try:
                    listener.close()
                    _do(request, channel, outputs)
                finally:  # nor is it a copy's to keep
                    os._exit(1)
        for descriptor in outputs:
            os.close(descriptor)


def _open(request: _Message) -> None:
    """Have the model open that a job is about to ask for. What is wrong with it is for the job to say."""
    from inferometer.manifest import Manifest
    from inferometer.models import keep_open

    with suppress(Exception):
        keep_open(Manifest.read(Path(request["manifest"])), Path(request["checkpoint"]), request["dtype"])
    gc.collect()
    gc.freeze()  # what copies need not look at again stays in memory that they share


def _end_with(job: socket.socket) -> None:
    """Make this process end as soon as the job does for which it works."""

    def wait() -> None:
        ended = select.poll()
        ended.register(job, select.POLLHUP)
        ended.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def _do(request: _Message, channel: _Channel, outputs: list[int]) -> NoReturn:
    """Be the job: run its script, and tell it how that ended."""
    global _is_copy
    _is_copy = True
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor, own in zip(outputs, OUTPUTS, strict=True):
        os.dup2(descriptor, own)
        os.close(descriptor)
    _end_with(channel.socket)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    os.chdir(request["folder"])

    def renamed(source: Path, target: Path) -> None:
        channel.send({"source": str(Path.cwd() / source), "target": str(Path.cwd() / target)})
        if refused := (channel.receive() or {}).get("refused"):
            raise OSError(*refused)

    files.rename_by(renamed)
    status = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    channel.send({"status": status})
    os._exit(status)


def _status(channel: _Channel) -> int:
    """Rename what the copy has made, until it says how it ended."""
    while message := channel.receive():
        if "status" in message:
            return int(message["status"])
        try:
            Path(message["source"]).replace(message["target"])
            channel.send({})
        except OSError as error:
            channel.send({"refused": (error.errno, error.strerror, error.filename)})
    print("this job was killed from outside, perhaps for want of memory; run it where there is more.", file=sys.stderr)
    return 1


def hand_over(manifest: str, checkpoint: str, device: str, dtype: str) -> None:
    """Have the running script done by a copy of the keeper, and end with its status.

    The script opens the model of a `manifest` and a `checkpoint` in a `dtype`, on the configuration's `device`. Returns
    where this process is to run it: a copy, one without a Snakemake that calls, or one that may use a GPU.
    """
    caller = None if _is_copy else _caller()
    if caller is None or (device != "cpu" and any(Path(driver).exists() for driver in GPU_DRIVERS)):
        return
    try:
        channel = _connected(caller)
        socket.send_fds(channel.socket, [b"\n"], OUTPUTS)
        request = {"manifest": manifest, "checkpoint": checkpoint, "dtype": dtype}
        own = {"arguments": sys.argv, "folder": str(Path.cwd()), "environment": dict(os.environ)}
        channel.send(request | own)
    except OSError:  # a keeper that was killed just now
        return
    end_with_caller()
    sys.exit(_status(channel))
