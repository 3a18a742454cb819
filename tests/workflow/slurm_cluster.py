"""A real SLURM cluster of one node with one pretended GPU, in a folder, for the time of a test.

munge, slurmctld and slurmd of Debian's slurm-wlm run as the current user on free ports: no systemd, no cgroups and
nothing outside the folder. The GPU is ``/dev/null``: SLURM hands it out, counts it and sets ``CUDA_VISIBLE_DEVICES``
as for a real one.
"""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "scancel", "scontrol", "sinfo", "squeue")
PARTITIONS = ("cpu", "gpu")  # cpu is SLURM's default partition: whatever reaches gpu was sent there

_CONF = """\
ClusterName=headsr
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# Containers have no cgroups to write to. Of the two other ways to know a job by its processes, the tree in /proc
# (proctrack/linuxproc) loses those whose parent was killed first: the executor's own process then outlives scancel.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
# Cores, memory and the GPU are counted, so that what a job asked for decides when it starts.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# No database: jobs stay in the controller's memory for a day and a line for each is written when it ends.
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed.txt
MinJobAge=86400
TaskProlog={folder}/record_task
# Two seconds, the default pause between two looks at the queue, would be most of a short job's time.
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
KillWait=2
ReturnToService=2
{node} NodeAddr=127.0.0.1 Gres=gpu:1 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE
PartitionName=gpu Nodes=ALL MaxTime=INFINITE
"""

# What each task of each job sees, written by SLURM itself before the task starts, so no rule has to tell.
_RECORD_TASK = """\
#!/bin/sh
echo "${{SLURM_JOB_ID}} ${{SLURM_STEP_ID:-batch}} ${{CUDA_VISIBLE_DEVICES-unset}}" >> {folder}/tasks.txt
"""

# The executor's job step drops every SLURM_ variable but the job's identity before it calls srun. At a site srun then
# finds /etc/slurm/slurm.conf; here it must be told again.
_SRUN = """\
#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


def missing_programs() -> list[str]:
    """Return the SLURM programs that this machine lacks.

    Daemons are looked for in the system folders too, which are not in an ordinary user's PATH.
    """
    return [name for name in (*DAEMONS, *COMMANDS) if _find(name) is None]


@dataclass(frozen=True)
class Cluster:
    """A running cluster: where its files are, and what its own records say."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which programs find this cluster and the programs beside this Python."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        inherited.pop("CUDA_VISIBLE_DEVICES", None)  # what a job sees must come from SLURM
        path = os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**inherited, "PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str, timeout: float = 30) -> str:
        """Run one of SLURM's commands and return what it prints; raises where it fails."""
        process = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {process.stderr.strip()}")
        return process.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Return the controller's record of every job so far: ``scontrol show job``, one dict per job."""
        text = self.run("scontrol", "show", "job", "--oneliner", "--details")
        return [_fields(line) for line in text.splitlines() if line.startswith("JobId=")]

    def jobs_of(self, rule: str) -> list[dict[str, str]]:
        """Return the records of one Snakemake rule's jobs, oldest first: the executor writes the rule as a comment."""
        pattern = re.compile(rf"rule_{re.escape(rule)}(_wildcards_.*)?")
        found = [job for job in self.jobs() if pattern.fullmatch(job.get("Comment", ""))]
        return sorted(found, key=lambda job: int(job["JobId"]))

    def visible_devices(self) -> dict[str, set[str]]:
        """Return the values of CUDA_VISIBLE_DEVICES that each job's tasks saw, by job id; "unset" where it was not."""
        seen: dict[str, set[str]] = {}
        record = self.folder / "tasks.txt"
        for line in record.read_text().splitlines() if record.exists() else []:
            job, _, devices = line.split(" ", 2)
            seen.setdefault(job, set()).add(devices)
        return seen

    def completed(self) -> list[dict[str, str]]:
        """Return the lines of SLURM's log of ended jobs (jobcomp/filetxt), one dict per job."""
        log = self.folder / "completed.txt"
        return [_fields(line) for line in log.read_text().splitlines()] if log.exists() else []


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a cluster in an empty folder and stop all of it at the end, also after a failure or a termination."""
    folder = folder.resolve()
    _write_files(folder)
    cluster = Cluster(folder)
    daemons: list[subprocess.Popen] = []
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # otherwise Python ends without what is below
    try:
        daemons.append(_start_munge(folder))
        for name in ("slurmctld", "slurmd"):
            arguments = [_find(name), "-D", "-f", str(folder / "slurm.conf")]
            daemons.append(_start(arguments, folder / f"{name}.log", cluster.environment))
        _wait_until_idle(cluster, daemons)
        yield cluster
    finally:
        _cancel_all(cluster)
        _stop(daemons)
        signal.signal(signal.SIGTERM, before)


def _find(program: str) -> str | None:
    """Return the path of a program, or None."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def _fields(line: str) -> dict[str, str]:
    """Split ``Key=value Key=value`` into a dict; a value may hold spaces and equals signs."""
    parts = re.split(r"(?:^|\s)([A-Za-z:/_]+)=", line.strip())
    return {key: value.strip() for key, value in zip(parts[1::2], parts[2::2], strict=True)}


def _free_ports(number: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _write_files(folder: Path) -> None:
    """Write the cluster's configuration: this machine's cores and memory, free ports."""
    node = subprocess.run([_find("slurmd"), "-C"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    controller_port, node_port = _free_ports(2)
    values = {"folder": folder, "user": getpass.getuser(), "node": node, "srun": _find("srun")}
    values |= {"host": socket.gethostname().split(".")[0], "controller_port": controller_port, "node_port": node_port}
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(_CONF.format(**values))
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    for path, text in ((folder / "record_task", _RECORD_TASK), (folder / "bin" / "srun", _SRUN)):
        path.write_text(text.format(**values))
        path.chmod(0o755)
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(os.urandom(1024))


def _start(arguments: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a daemon in the foreground; it dies with this process, also where this process is killed."""
    with_parent = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    with log.open("wb") as output:
        return subprocess.Popen(
            [*with_parent, *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C at the test must not reach it before its jobs are cancelled
        )


def _start_munge(folder: Path) -> subprocess.Popen:
    """Start munge with its own key and socket; --force: it takes folders that others may write to, as tests have."""
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    arguments = [_find("munged"), "--foreground", "--force", f"--socket={folder}/munge.socket", *files]
    daemon = _start(arguments, folder / "munged.log", os.environ)
    end = time.monotonic() + 20
    while not (folder / "munge.socket").exists():
        if daemon.poll() is not None or time.monotonic() > end:
            _stop([daemon])
            raise RuntimeError(f"munged did not start: {_tail(folder / 'munged.log')}")
        time.sleep(0.05)
    return daemon


def _wait_until_idle(cluster: Cluster, daemons: list[subprocess.Popen]) -> None:
    """Wait until the node says that it is ready."""
    end = time.monotonic() + 60
    while time.monotonic() < end and all(daemon.poll() is None for daemon in daemons):
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            if "idle" in cluster.run("sinfo", "--noheader", "--format=%T").split():
                return
        time.sleep(0.2)
    logs = {path.name: _tail(path) for path in sorted(cluster.folder.glob("*.log"))}
    raise RuntimeError(
        "the SLURM cluster did not start:\n" + "\n".join(f"{name}:\n{text}" for name, text in logs.items())
    )


def _cancel_all(cluster: Cluster) -> None:
    """Cancel what still runs, and wait for it: a job step outlives its slurmd."""
    with suppress(RuntimeError, subprocess.TimeoutExpired):
        cluster.run("scancel", "--user", getpass.getuser())
        end = time.monotonic() + 15
        while cluster.run("squeue", "--noheader").strip() and time.monotonic() < end:
            time.sleep(0.2)


def _stop(daemons: list[subprocess.Popen]) -> None:
    """Stop the daemons, the newest first: gently, then not."""
    for daemon in reversed(daemons):
        daemon.terminate()
        try:
            daemon.wait(timeout=10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _tail(path: Path, lines: int = 20) -> str:
    """Return the end of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"
