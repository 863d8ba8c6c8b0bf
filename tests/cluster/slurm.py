"""A real Slurm of two nodes on this machine, without accounting: its daemons, its configuration, and their end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")

NODES = ("n1", "n2")

CONF = """\
ClusterName=er
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SwitchType=switch/none
ReturnToService=2
MpiDefault=none
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
# A node that does not answer is soon given up; and jobs are requeued only if they ask for it.
SlurmdTimeout=10
KillWait=5
JobRequeue=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=8192 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=8192 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Return why there can be no Slurm here, if so."""
    if os.geteuid() != 0:
        return "starting Slurm's daemons takes root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    return f"{', '.join(absent)}: not installed; `make test-cluster` installs them (Debian, Ubuntu)" if absent else None


def until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s not yet: {what}")
        time.sleep(0.5)


class Slurm:
    """The daemons, and what is asked of them; SLURM_CONF in `env` is the mark of all that belongs to this cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.env = {**os.environ, "PATH": _path(), "SLURM_CONF": str(self.conf)}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons, and wait until both nodes take jobs."""
        (self.folder / "state").mkdir(parents=True)
        self.folder.chmod(0o755)
        self.conf.write_text(CONF.format(host=socket.gethostname().split(".")[0], folder=self.folder, ports=_ports(3)))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {name: f"{self.folder}/munge.{name}" for name in ("key", "socket", "pid", "log", "seed")}
        files = {f"--{name}{'' if name == 'socket' else '-file'}": path for name, path in files.items()}
        self._run("munged", "munged", "--foreground", "--force", *(f"{name}={path}" for name, path in files.items()))
        until((self.folder / "munge.socket").exists, 20, "munged listens")
        self._run("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        """Start a node, or start it again, and wait until it takes jobs."""
        self._run(node, "slurmd", "-D", "-N", node, "-f", str(self.conf))
        until(lambda: self._state(node) in ("idle", "mixed", "allocated"), 60, f"{node} takes jobs")

    def kill_node(self, node: str) -> None:
        """End a node and all that runs on it as a power cut would."""
        self._kill(lambda env: node in (env.get("SLURMD_NODENAME"), env.get("ER_DAEMON")))
        self.daemons.pop(node).wait(timeout=30)

    def stop(self) -> None:
        """End everything that belongs to this cluster."""
        self._kill(lambda env: True)
        for daemon in self.daemons.values():
            daemon.wait(timeout=30)

    def ask(self, *command: str) -> str:
        """Run one of Slurm's commands, and return what it prints."""
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=True, timeout=60).stdout

    def running(self, node: str) -> list[str]:
        """Return the jobs that run on a node."""
        return self.ask("squeue", "-h", "--array", "--states=R", "-w", node, "--format=%i").split()

    def left(self) -> list[int]:
        """Return the processes that belong to this cluster."""
        return [pid for pid, env in _environments() if env.get("SLURM_CONF") == str(self.conf)]

    def _state(self, node: str) -> str:
        try:
            return self.ask("sinfo", "-h", "-n", node, "--format=%T").strip()
        except subprocess.CalledProcessError:
            return "no answer"

    def _run(self, name: str, *command: str) -> None:
        env = self.env | {"ER_DAEMON": name}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    def _kill(self, chosen: Callable[[dict[str, str]], bool]) -> None:
        for pid, env in _environments():
            if env.get("SLURM_CONF") == str(self.conf) and chosen(env):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Run a cluster for the while; nothing of it is left behind."""
    cluster = Slurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        until(lambda: not cluster.left(), 30, f"all processes of {folder} have ended")


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _environments() -> Iterator[tuple[int, dict[str, str]]]:
    """Return every process but this, with the environment it was started with."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                pairs = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                yield int(folder.name), dict(pair.split("=", 1) for pair in pairs if "=" in pair)
