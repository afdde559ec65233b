"""A real Slurm on this machine: one controller and as many nodes as wanted, each with GPUs that are files.

Everything lies in one folder and listens on this machine alone; nothing is installed or configured. The programs are
those of Debian's packages slurm-wlm and munge.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
PROGRAMS = ("munged", "slurmctld", "slurmd", *COMMANDS)
FAKE_GPUS = ("/dev/null", "/dev/zero")  # Slurm counts devices and hands them out; it doesn't look what they are
PATIENCE_S = 30

CONFIGURATION = """\
ClusterName=inferometer
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MinJobAge=43200
GresTypes=gpu
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool/%n
StateSaveLocation={folder}/state
SlurmctldTimeout=10
SlurmdTimeout=10
BatchStartTimeout=30
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=64000{gres}"


def missing_programs() -> list[str]:
    """What a test needs and this machine lacks."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def kill_all_with(mark: str) -> int:
    """Kill -9 every process that has this `NAME=value` in its environment, and say how many there were."""
    killed = 0
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return killed


def _free_ports(count: int) -> list[int]:
    """Ports of this machine on which nothing listens."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for own in sockets:
            own.bind(("127.0.0.1", 0))
        return [own.getsockname()[1] for own in sockets]
    finally:
        for own in sockets:
            own.close()


@dataclass(frozen=True)
class Slurm:
    """A running Slurm: its folder, and the process of each of its daemons by name."""

    folder: Path
    daemons: Mapping[str, subprocess.Popen[bytes]]

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to talk to this Slurm: commands that know where it is.

        SLURM_CONF alone would not do: Snakemake's plugin takes all variables of Slurm away from its jobs.
        """
        return {"PATH": os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])}

    def ask(self, *command: str) -> str:
        """What one of Slurm's own commands prints."""
        environment = os.environ | self.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    def states(self) -> dict[str, str]:
        """The state of each node, such as `idle` or `mixed`."""
        pairs = (line.split() for line in self.ask("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines())
        return dict(pairs)

    def nodes_of_jobs(self) -> dict[str, str]:
        """The node on which each job runs or ran, by the job's id."""
        lines = self.ask("squeue", "--noheader", "--states=all", "--format=%i %N").splitlines()
        return {job[0]: job[1] for line in lines if len(job := line.split()) == 2}

    def states_of_jobs(self) -> dict[str, str]:
        """What became of each job, such as `COMPLETED` or `FAILED`, by the job's id."""
        lines = self.ask("squeue", "--noheader", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def kinds_of_jobs(self) -> dict[str, str]:
        """What each job is for, its rule and wildcards in the plugin's words, by the job's id."""
        lines = self.ask("squeue", "--noheader", "--states=all", "--format=%i %k").splitlines()
        return dict(line.split(maxsplit=1) for line in lines)

    def running(self) -> dict[str, str]:
        """The node on which each job runs that runs now."""
        lines = self.ask("squeue", "--noheader", "--states=running", "--format=%i %N").splitlines()
        return dict(line.split() for line in lines)

    def kill_job(self, job: str) -> int:
        """Kill -9 all processes of a job, and say how many there were."""
        return kill_all_with(f"SLURM_JOB_ID={job}")

    def kill_node(self, name: str) -> None:
        """End a node at once, as if its power was cut: its daemon and all that runs on it."""
        daemon = self.daemons[name]
        daemon.kill()
        daemon.wait()
        kill_all_with(f"SLURMD_NODENAME={name}")


def _write_commands(folder: Path) -> None:
    """Slurm's commands, each told which Slurm it is that they belong to."""
    (folder / "bin").mkdir()
    for name in (*COMMANDS, "slurmctld", "slurmd"):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which(name)} "$@"\n')
        command.chmod(0o755)


@contextmanager
def slurm(folder: Path, nodes: Sequence[str], gpus: int) -> Iterator[Slurm]:
    """Run a Slurm with these nodes for the length of the block; its daemons are ended by their processes."""
    for name in ("state", "log", *(f"spool/{node}" for node in nodes)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)  # munge trusts no socket that others could replace
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host, user = socket.gethostname().split(".")[0], "root"
    controller_port, *ports = _free_ports(1 + len(nodes))
    gres = f" Gres=gpu:{gpus}" if gpus else ""
    lines = [NODE.format(name=name, host=host, port=port, gres=gres) for name, port in zip(nodes, ports, strict=True)]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=host, user=user, folder=folder, controller_port=controller_port, nodes="\n".join(lines)
        )
    )
    files = ",".join(FAKE_GPUS[:gpus])
    (folder / "gres.conf").write_text("".join(f"NodeName={name} Name=gpu File={files}\n" for name in nodes if gpus))
    _write_commands(folder)
    commands = {
        "munged": [
            *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"),
            *(f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed"),
        ],
        "slurmctld": ["slurmctld", "-D"],
        **{name: ["slurmd", "-D", "-N", name] for name in nodes},
    }
    daemons: dict[str, subprocess.Popen[bytes]] = {}
    found = Slurm(folder, daemons)
    environment = os.environ | found.environment
    try:
        for name, command in commands.items():
            with (folder / "log" / f"{name}.log").open("wb") as sink:
                program = shutil.which(command[0], path=environment["PATH"])
                assert program is not None
                daemons[name] = subprocess.Popen(
                    [program, *command[1:]], env=environment, stdout=sink, stderr=subprocess.STDOUT
                )
            if name == "munged":
                _wait_for(folder / "munge.socket")
        _wait_until_idle(found)
        yield found
    finally:
        for daemon in reversed(daemons.values()):
            daemon.terminate()
        for daemon in daemons.values():
            try:
                daemon.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} did not come")
        time.sleep(0.1)


def _wait_until_idle(found: Slurm) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            if set(found.states().values()) == {"idle"}:
                return
        except subprocess.CalledProcessError:
            pass  # the controller isn't there yet
        if time.monotonic() > end:
            logs = "\n".join(path.read_text(errors="replace")[-500:] for path in (found.folder / "log").iterdir())
            raise TimeoutError(f"Slurm did not start:\n{logs}")
        time.sleep(0.2)
