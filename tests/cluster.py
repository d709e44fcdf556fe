"""A real SLURM cluster on this machine, for the tests: slurmctld, slurmdbd with its database, and virtual nodes.

A node is a slurmd in namespaces of its own: host name, processes, mounts, network. Killing its first process is the
node's power loss. Everything lives below one folder, and nothing of the system's own configuration is touched. Needs
root, and the packages that scripts/system_packages.sh installs.

Each daemon is killed with the process that started it, however that ends (the kernel does it: PR_SET_PDEATHSIG), and
with a node's first process all that runs in it. What is no process (bridge, namespaces, control groups) the next
cluster clears away.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import psutil
from waiting import ended, wait_for, work_of

NEEDED = ("setpriv", "munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "sacct", "ip", "unshare", "rsync")
SBIN = "/usr/sbin:/sbin"
CONTROLLERS = Path("/sys/fs/cgroup")
LOOK_S = 0.3  # between two questions to SLURM, each of which is a process of its own
PATIENCE_S = 240.0  # SLURM looks at some things once a minute or two only
TAG = re.compile(
    r"db([0-9a-f]+)x\d+"
)  # of what belongs to a cluster: the process that started it, and which of its own
_numbers = itertools.count()

SLURM_CONF = """\
ClusterName=distilbench
SlurmctldHost={host}({address}.254)
SlurmctldPort={ctl}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/{track}
TaskPlugin=task/{task}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
{over_memory}AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={address}.254
AccountingStoragePort={dbd}
AccountingStoragePass={root}/munge.sock
AccountingStorageTRES=gres/gpu
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdTimeout=10
KillWait=5
MinJobAge=600
ReturnToService=2
RebootProgram=/bin/true
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=30 PriorityTier=10
PartitionName=low Nodes=ALL MaxTime=INFINITE DefaultTime=30 PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
"""
NODE = (
    "NodeName={name} NodeHostname={name} NodeAddr={address}.{i} Port={port} CPUs={cpus} RealMemory={memory} Gres=gpu:1"
)
DBD_CONF = """\
DbdHost={host}
DbdAddr={address}.254
DbdPort={dbd}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
LogFile={root}/slurmdbd.log
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StoragePass=slurm
StorageLoc=accounts
"""
INIT = """\
hostname $1
mount --bind {root}/hosts /etc/hosts
trap 'exit' TERM
while :; do slurmd -D $2 -N $1 -f {root}/slurm.conf; sleep 0.3; done
"""


def missing() -> str | None:
    """Why no cluster can be started here; None: one can."""
    path = f"{os.environ['PATH']}:{SBIN}"
    if absent := [program for program in NEEDED if not shutil.which(program, path=path)]:
        return f"{', '.join(absent)} missing (scripts/system_packages.sh installs them on Debian)"
    if os.geteuid():
        return "starting a SLURM cluster needs root"
    if subprocess.run(["unshare", "--uts", "--mount", "--net", "true"], check=False, capture_output=True).returncode:
        return "namespaces are not permitted here"
    return None


class Cluster:
    """Nodes whose `names` end in n1, n2, ...; `env` is what clients need."""

    def __init__(self, root: Path, nodes: int = 2, cpus: int = 2, memory_MiB: int = 3000) -> None:
        self.tag = f"db{os.getpid():x}x{next(_numbers)}"  # of nodes and network devices: several clusters may be up
        self.root, self.names = root, [f"{self.tag}n{i + 1}" for i in range(nodes)]
        self.address = f"10.214.{secrets.randbelow(250) + 1}"
        ctl, dbd, self.sql, port = free_ports(4)
        two = not (CONTROLLERS / "memory/cgroup.procs").exists()
        host = socket.gethostname()
        self.env = os.environ | {
            "SLURM_CONF": f"{root}/slurm.conf",
            "PATH": f"{os.environ['PATH']}:{SBIN}",
            "SLURM_TIME_FORMAT": "standard",
        }
        self.kills_by_kernel = not two
        self._running: dict[str, subprocess.Popen] = {}
        self._hurried: dict[str, float] = {}
        lines = [
            NODE.format(name=name, address=self.address, i=i + 1, port=port, cpus=cpus, memory=memory_MiB)
            for i, name in enumerate(self.names)
        ]
        values = {
            "root": root, "host": host, "address": self.address, "ctl": ctl, "dbd": dbd, "sql": self.sql,
            "nodes": "\n".join(lines), "track": "linuxproc" if two else "cgroup", "task": "none" if two else "cgroup",
            "over_memory": "JobAcctGatherParams=OverMemoryKill\n" if two else "",
        }  # fmt: skip
        root.mkdir(parents=True, exist_ok=True)
        (root / "state").mkdir()
        (root / "slurm.conf").write_text(SLURM_CONF.format(**values))
        (root / "slurmdbd.conf").write_text(DBD_CONF.format(**values))
        (root / "slurmdbd.conf").chmod(0o600)
        (root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\nConstrainSwapSpace=no\n")
        os.mknod(root / "gpu0", 0o666 | 0o020000, os.makedev(1, 3))  # a device file like /dev/null stands for a GPU
        (root / "gres.conf").write_text(f"AutoDetect=off\nNodeName={self.tag}n[1-{nodes}] Name=gpu File={root}/gpu0\n")
        (root / "init.sh").write_text(INIT.format(root=root))
        hosts = [f"{self.address}.{i + 1} {name}" for i, name in enumerate(self.names)]
        (root / "hosts").write_text("\n".join(["127.0.0.1 localhost", f"{self.address}.254 {host}", *hosts]) + "\n")
        (root / "munge.key").write_bytes(secrets.token_bytes(128))
        (root / "munge.key").chmod(0o600)

    # -------------------------------------------------------------- daemons

    def start(self) -> None:
        """Starts everything and waits until all nodes are idle."""
        root = self.root
        clear_away()
        self._network()
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={root}/munge.key", f"--socket={root}/munge.sock",
            f"--pid-file={root}/munged.pid", f"--log-file={root}/munged.log", f"--seed-file={root}/munge.seed",
        )  # fmt: skip
        wait_for(lambda: self.ok("munge", "-n", "-S", f"{root}/munge.sock"), "munged", patience_s=PATIENCE_S)
        self.run(
            "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={root}/sql", "--skip-test-db",
            "--auth-root-authentication-method=normal", "--innodb-log-file-size=8M",
        )  # fmt: skip
        self._daemon(
            "mariadbd", "--no-defaults", "--user=root", f"--datadir={root}/sql", f"--socket={root}/sql.sock",
            f"--pid-file={root}/sql.pid", "--bind-address=127.0.0.1", f"--port={self.sql}", "--skip-log-bin",
            "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=8M", "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=2", "--performance-schema=OFF",
        )  # fmt: skip
        sql = ("mariadb", "--no-defaults", "-uroot", f"--socket={root}/sql.sock", "-e")
        wait_for(lambda: self.ok(*sql, "select 1"), "mariadbd", patience_s=PATIENCE_S)
        self.run(
            *sql,
            "create database accounts; create user slurm@localhost identified by 'slurm'; "
            "create user slurm@127.0.0.1 identified by 'slurm'; grant all on accounts.* to slurm@localhost; "
            "grant all on accounts.* to slurm@127.0.0.1;",
        )
        self._daemon("slurmdbd", "-D")
        wait_for(lambda: self.ok("sacctmgr", "-n", "-i", "list", "cluster"), "slurmdbd", patience_s=PATIENCE_S)
        self.run("sacctmgr", "-i", "add", "cluster", "distilbench")
        self._daemon("slurmctld", "-D", "-f", f"{root}/slurm.conf")
        wait_for(lambda: "is UP" in self.run("scontrol", "ping", check=False), "slurmctld", patience_s=PATIENCE_S)
        for name in self.names:
            self.power_on(name)

    def stop(self) -> None:
        """Ends everything that was started; what goes wrong with one thing keeps none of the others alive."""
        with contextlib.ExitStack() as last_to_first:
            last_to_first.callback(clear_away, self.tag)
            for name in ("munged", "mariadbd", "slurmdbd", "slurmctld"):
                last_to_first.callback(self._end, name)
            for name in self.names:
                last_to_first.callback(self.power_off, name)
            if "slurmctld" in self._running:
                self.run("scancel", "--user=root", check=False)

    def _end(self, name: str) -> None:
        """Asks a daemon to end, and kills the one that does not."""
        if not (process := self._running.pop(name, None)):
            return
        process.terminate()
        try:
            ended(process)
        finally:
            process.kill()
            process.wait()

    def power_off(self, name: str) -> None:
        """Power loss: the node, its slurmd and all that runs on it are gone at once."""
        if process := self._running.pop(name, None):
            on_it = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
            process.wait()
            # While one is there slurmctld could still tell it that its node is lost.
            wait_for(lambda: not psutil.wait_procs(on_it, 0.1)[1], f"{name} is off: {on_it} ended")

    def power_on(self, name: str) -> None:
        """Boots a node and waits until it can take jobs."""
        self.boot(name)
        self.wait(lambda: self._is_up(name), f"node {name} up")

    def boot(self, name: str) -> None:
        """Starts a node that is off."""
        script, i = str(self.root / "init.sh"), self.names.index(name) + 1
        self._daemon(
            "nsenter", f"--net=/run/netns/{self.tag}n{i}", "unshare", "--uts", "--mount", "--pid", "--fork",
            "--mount-proc", "--kill-child=KILL", "bash", script, name, "-b", name=name,
        )  # fmt: skip

    def is_on(self, name: str) -> bool:
        """Whether a node has power."""
        return name in self._running and self._running[name].poll() is None

    def wait(self, condition: Callable[[], Any], what: object = "") -> Any:
        """What the condition gives once it holds; fails when meanwhile nothing happens on the nodes or in the queue."""
        return wait_for(condition, what, self._signs, PATIENCE_S, LOOK_S)

    def _signs(self) -> Hashable:
        at_work = []
        for name in filter(self.is_on, self.names):
            with contextlib.suppress(psutil.Error):
                below = psutil.Process(self._running[name].pid).children(recursive=True)
                at_work += [process for process in below if not process.name().startswith("slurm")]
        return work_of(at_work), tuple(map(tuple, self.queue()))

    def lose(self, name: str) -> None:
        """Power loss that slurmctld learns of now, without waiting for its own timeout."""
        self.power_off(name)
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=power")

    def _is_up(self, name: str) -> bool:
        state = self.run("sinfo", "-h", "-N", "-p", "main", "-n", name, "-o", "%T").strip()
        if state.startswith(("down", "drain", "inval")) and not state.endswith("*"):
            self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        return state in ("idle", "mixed", "allocated")

    def idle(self) -> bool:
        """Whether every node waits for work."""
        up = [self._is_up(name) for name in self.names]
        states = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).split()
        return all(up) and states == ["idle"] * len(self.names)

    def _network(self) -> None:
        """A bridge of this machine, and behind it a network namespace per node."""
        self.run("ip", "link", "add", self.tag, "type", "bridge")
        self.run("ip", "addr", "add", f"{self.address}.254/24", "dev", self.tag)
        self.run("ip", "link", "set", self.tag, "up")
        for i in range(1, len(self.names) + 1):
            inside, outside = f"{self.tag}n{i}", f"{self.tag}v{i}"
            self.run("ip", "netns", "add", inside)
            self.run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", inside)
            self.run("ip", "link", "set", outside, "master", self.tag, "up")
            self.run("ip", "-n", inside, "addr", "add", f"{self.address}.{i}/24", "dev", "eth0")
            self.run("ip", "-n", inside, "link", "set", "eth0", "up")
            self.run("ip", "-n", inside, "link", "set", "lo", "up")

    def _daemon(self, *command: str, name: str = "") -> None:
        name = name or command[0]
        assert not self.is_on(name), f"{name} runs already, and would be forgotten"
        log = (self.root / f"{name}.out").open("ab")
        self._running[name] = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True,
        )  # fmt: skip
        log.close()

    # -------------------------------------------------------------- clients

    def ok(self, *command: str) -> bool:
        """Whether a command succeeds."""
        return subprocess.run(command, env=self.env, capture_output=True, check=False).returncode == 0

    def run(self, *command: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """What a command prints; its own words where it fails."""
        done = subprocess.run(command, env=env or self.env, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def queue(self, *jobs: str) -> list[list[str]]:
        """Id, state and node of each task that waits or runs."""
        named = ["-j", ",".join(jobs)] if jobs else []
        lines = self.run("squeue", "-h", "-r", *named, "-o", "%i|%T|%N", check=False).splitlines()
        return [line.split("|") for line in lines]

    def raw_queue(self) -> list[list[str]]:
        """As `queue`, of all jobs; an array's task under its own id."""
        lines = self.run("squeue", "-h", "-r", "-o", "%A|%T|%N", check=False).splitlines()
        return [line.split("|") for line in lines]

    def wait_until_gone(self, *jobs: str) -> None:
        """Waits until jobs have left the queue; those that were requeued need not wait for their two minutes."""

        def gone() -> bool:
            self.hurry(*jobs)
            return not self.queue(*jobs)

        self.wait(gone, f"jobs {jobs} gone; queue: {self.queue(*jobs)}")

    def hurry(self, *jobs: str) -> None:
        """Lets requeued jobs start: SLURM holds them back for two minutes. In the next second, not in this one."""
        named = ["-j", ",".join(jobs)] if jobs else []
        lines = self.run("squeue", "-h", "-r", *named, "-t", "PD", "-o", "%i|%r", check=False).splitlines()
        for job, reason in (line.split("|") for line in lines):
            if reason == "BeginTime" and time.monotonic() - self._hurried.get(job, 0) > 5:
                self._hurried[job] = time.monotonic()
                self.run("scontrol", "update", f"jobid={job}", "StartTime=now+2", check=False)

    def states(self, job: str) -> list[str]:
        """States of all incarnations of a job's tasks, as accounting has them."""
        said = self.run("sacct", "-n", "-P", "-X", "-D", "-j", job, "-o", "State").split("\n")
        return [line.split(" ")[0] for line in said if line]


def clear_away(tag: str = "") -> None:
    """Network devices, namespaces and control groups with that tag; without one, those of processes that are gone."""

    def meant(name: str) -> bool:
        found = TAG.match(name)
        return bool(found) and (found[0] == tag if tag else not psutil.pid_exists(int(found[1], 16)))

    for space in filter(meant, [line.split()[0] for line in _lines("ip", "netns", "list")]):
        subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
    for device in filter(meant, [line.split()[1].rstrip(":") for line in _lines("ip", "-o", "link")]):
        subprocess.run(["ip", "link", "del", device.split("@")[0]], check=False, capture_output=True)
    for folder in CONTROLLERS.glob("*/slurm_db*"):
        if meant(folder.name.removeprefix("slurm_")):
            subprocess.run(["find", str(folder), "-depth", "-type", "d", "-delete"], check=False, capture_output=True)


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.splitlines()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
