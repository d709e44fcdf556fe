"""A real SLURM cluster on this machine, for the tests: slurmctld, slurmdbd with its database, and virtual nodes.

A node is a slurmd in namespaces of its own: host name, processes, mounts, network. Killing its first process is the
node's power loss. Everything lives below one folder, and nothing of the system's own configuration is touched. Needs
root, and the packages that scripts/system_packages.sh installs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

NEEDED = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "sacct", "ip", "unshare", "rsync")
SBIN = "/usr/sbin:/sbin"
CONTROLLERS = Path("/sys/fs/cgroup")

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


def wait_for(condition: Callable[[], object], seconds: float = 60.0, what: str = "") -> object:
    """What the condition gives once it holds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what or condition}")
        time.sleep(0.1)
    return found


class Cluster:
    """Nodes whose `names` end in n1, n2, ...; `env` is what clients need."""

    def __init__(self, root: Path, nodes: int = 2, cpus: int = 2, memory_MiB: int = 3000) -> None:
        self.tag = f"db{secrets.token_hex(2)}"  # of nodes and network devices: several clusters may be up
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
        self._network()
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={root}/munge.key", f"--socket={root}/munge.sock",
            f"--pid-file={root}/munged.pid", f"--log-file={root}/munged.log", f"--seed-file={root}/munge.seed",
        )  # fmt: skip
        wait_for(lambda: self.ok("munge", "-n", "-S", f"{root}/munge.sock"), what="munged")
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
        wait_for(lambda: self.ok(*sql, "select 1"), what="mariadbd")
        self.run(
            *sql,
            "create database accounts; create user slurm@localhost identified by 'slurm'; "
            "create user slurm@127.0.0.1 identified by 'slurm'; grant all on accounts.* to slurm@localhost; "
            "grant all on accounts.* to slurm@127.0.0.1;",
        )
        self._daemon("slurmdbd", "-D")
        wait_for(lambda: self.ok("sacctmgr", "-n", "-i", "list", "cluster"), what="slurmdbd")
        self.run("sacctmgr", "-i", "add", "cluster", "distilbench")
        self._daemon("slurmctld", "-D", "-f", f"{root}/slurm.conf")
        wait_for(lambda: "is UP" in self.run("scontrol", "ping", check=False), what="slurmctld")
        for name in self.names:
            self.power_on(name)

    def stop(self) -> None:
        """Ends everything that was started."""
        if "slurmctld" in self._running:
            self.run("scancel", "--user=root", check=False)
        for name in self.names:
            self.power_off(name)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            if process := self._running.pop(name, None):
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
        for i in range(len(self.names)):
            subprocess.run(["ip", "netns", "del", f"{self.tag}n{i + 1}"], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.tag], check=False, capture_output=True)
        for name in self.names:
            for folder in CONTROLLERS.glob(f"*/slurm_{name}"):
                subprocess.run(["find", str(folder), "-depth", "-type", "d", "-delete"], check=False)

    def power_off(self, name: str) -> None:
        """Power loss: the node, its slurmd and all that runs on it are gone at once."""
        if process := self._running.pop(name, None):
            on_it = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait(10)
            _, alive = psutil.wait_procs(on_it, 10)  # else slurmctld could still tell them that their node is lost
            assert not alive, f"{name} is off, but {alive} still run"

    def power_on(self, name: str) -> None:
        """Boots a node and waits until it can take jobs."""
        script, i = str(self.root / "init.sh"), self.names.index(name) + 1
        self._daemon(
            "nsenter", f"--net=/run/netns/{self.tag}n{i}", "unshare", "--uts", "--mount", "--pid", "--fork",
            "--mount-proc", "--kill-child=KILL", "bash", script, name, "-b", name=name,
        )  # fmt: skip
        wait_for(lambda: self._is_up(name), what=f"node {name} up")

    def lose(self, name: str) -> None:
        """Power loss that slurmctld learns of now, without waiting for its own timeout."""
        self.power_off(name)
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=power")

    def _is_up(self, name: str) -> bool:
        state = self.run("sinfo", "-h", "-N", "-p", "main", "-n", name, "-o", "%T").strip()
        if state.startswith(("down", "drain", "inval")) and not state.endswith("*"):
            self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        return state in ("idle", "mixed", "allocated")

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
        log = (self.root / f"{name}.out").open("ab")
        self._running[name] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True
        )

    # -------------------------------------------------------------- clients

    def ok(self, *command: str) -> bool:
        """Whether a command succeeds."""
        return subprocess.run(command, env=self.env, capture_output=True, check=False).returncode == 0

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints; its own words where it fails."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
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

    def wait_until_gone(self, *jobs: str, seconds: float = 480) -> None:
        """Waits until jobs have left the queue; those that were requeued need not wait for their two minutes."""

        def gone() -> bool:
            self.hurry(*jobs)
            return not self.queue(*jobs)

        wait_for(gone, seconds, f"jobs {jobs} gone; queue: {self.queue(*jobs)}")

    def hurry(self, *jobs: str) -> None:
        """Lets requeued jobs start: SLURM holds them back for two minutes. In the next second, not in this one."""
        named = ["-j", ",".join(jobs)] if jobs else []
        lines = self.run("squeue", "-h", "-r", *named, "-t", "PD", "-o", "%A|%r", check=False).splitlines()
        for job, reason in (line.split("|") for line in lines):
            if reason == "BeginTime" and time.monotonic() - self._hurried.get(job, 0) > 5:
                self._hurried[job] = time.monotonic()
                self.run("scontrol", "update", f"jobid={job}", "StartTime=now+2", check=False)

    def states(self, job: str) -> list[str]:
        """States of all incarnations of a job's tasks, as accounting has them."""
        said = self.run("sacct", "-n", "-P", "-X", "-D", "-j", job, "-o", "State").split("\n")
        return [line.split(" ")[0] for line in said if line]


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
