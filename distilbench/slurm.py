"""SLURM: the chain of jobs that measures a run, what became of them, and what they used.

A thin layer over sbatch, squeue, scontrol, scancel and sacct, with options and fields that SLURM 21.08 has. What a job
does is written in slurm/*.slurm, for people to read and edit.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distilbench import environment, paths
from distilbench.bench import parts
from distilbench.errors import DistilbenchError, ParameterError
from distilbench.runs import Run

MEASURE, STEP = "bench_distilbert.slurm", "step.slurm"
#: How an attempt ended whose process could not say so itself, from the state that SLURM gives its job (sacct(1)).
STATES = {
    "TIMEOUT": ("timeout", "the job's time limit was reached"),
    "DEADLINE": ("timeout", "the job's deadline was reached"),
    "OUT_OF_MEMORY": ("oom", "killed for want of memory (SLURM says so)"),
    "PREEMPTED": ("preempted", "another job took its place"),
    "REQUEUED": ("preempted", "put back into the queue"),
    "CANCELLED": ("cancelled", "the job was cancelled"),
    "NODE_FAIL": ("failed", "the node failed"),
    "BOOT_FAIL": ("failed", "the node did not boot"),
}
UNTOLD = ("running", "cancelled")  # of an attempt: killed without a word, or told to end (SIGTERM) but not why
#: What else than a cancelled job SIGTERM can mean; also a node that was believed lost and lives on is told to end.
TERMINATED = [STATES[name] for name in ("PREEMPTED", "REQUEUED", "TIMEOUT", "DEADLINE", "NODE_FAIL")]
ALIVE = ("RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING", "STOPPED", "SIGNALING", "STAGE_OUT")
FIELDS = (
    "JobID", "JobName", "Partition", "State", "ExitCode", "Start", "End", "ElapsedRaw", "NodeList", "AllocCPUS",
    "AllocTRES", "TotalCPU", "MaxRSS", "ConsumedEnergyRaw",
)  # fmt: skip
NO_ENERGY = "SLURM's ConsumedEnergy is 0 or empty: not measured"


@dataclass(frozen=True)
class Options:
    """What the user asks of the batch system; empty: as script, site.env or site say.

    Attributes:
        partition, account: of all jobs.
        time, mem, cpus, gres, constraint, exclusive: of the measuring tasks.
        throttle: how many of them run at once; 0: as many as there is room for.
        flags: more sbatch options of the measuring tasks.
        step_flags: more sbatch options of the other jobs.
        book: whether the chain ends with building the report.
    """

    partition: str = ""
    account: str = ""
    time: str = ""
    mem: str = ""
    cpus: int = 0
    gres: str = ""
    constraint: str = ""
    exclusive: bool = False
    throttle: int = 0
    flags: str = ""
    step_flags: str = ""
    book: bool = True

    def of_all(self) -> list[str]:
        """Options of every job."""
        return _flags(partition=self.partition, account=self.account)

    def of_tasks(self) -> list[str]:
        """Options of the measuring tasks."""
        cpus = str(self.cpus or "")
        named = {"time": self.time, "mem": self.mem, "cpus-per-task": cpus, "gres": self.gres}
        return [
            *self.of_all(),
            *_flags(**named, constraint=self.constraint),
            *(["--exclusive"] if self.exclusive else []),
            *shlex.split(self.flags),
        ]


def _flags(**named: str) -> list[str]:
    return [f"--{name}={value}" for name, value in named.items() if value]


@dataclass(frozen=True)
class Job:
    """One sbatch call.

    Attributes:
        name: in the chain.
        script: file in slurm/.
        flags: options of sbatch.
        variables: environment of the job, beside that of sbatch.
        after: the job before, and how it must have ended: ("ingest", "afterok").
    """

    name: str
    script: str
    flags: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    after: tuple[str, str] | None = None

    def command(self, ids: dict[str, str]) -> list[str]:
        """The words of the sbatch call; `ids` are those of the jobs before."""
        waits = []
        if self.after:  # without the second option a job whose condition cannot come true would wait for ever
            waits = [f"--dependency={self.after[1]}:{ids[self.after[0]]}", "--kill-on-invalid-dep=yes"]
        script = str(paths.repo_root() / "slurm" / self.script)
        return ["sbatch", "--parsable", "--export=ALL", *waits, *self.flags, script]


def chain(run: Run, numbers: list[int], options: Options, ingest: bool, retry_oom: bool = False) -> list[Job]:
    """The jobs of a submission: ingest, measure (an array over parts), gather, analyse, book, account.

    Args:
        run: the run; its folder is fixed before any job starts, so that a requeued one goes on in it.
        numbers: the parts to measure; none: what was measured is gathered.
        options: what the user asks for.
        ingest: whether text and model must be prepared first.
        retry_oom: measure again what ended for want of memory.
    """
    tag, where = run.run_id[-8:], {"RUN": str(run.folder), "DISTILBENCH_BIN": str(Path(sys.executable).parent)}
    steps = [*options.of_all(), *shlex.split(options.step_flags)]

    def step(name: str, after: tuple[str, str] | None) -> Job:
        return Job(name, STEP, [f"--job-name={name}-{tag}", *steps], where | {"STEP": name}, after)

    array = f"--array={_ranges(numbers)}" + (f"%{options.throttle}" if options.throttle else "")
    measure = Job(
        "measure",
        MEASURE,
        [f"--job-name=measure-{tag}", array, *options.of_tasks()],
        where | ({"RETRY_OOM": "1"} if retry_oom else {}),
        ("ingest", "afterok") if ingest else None,
    )
    jobs = [*([step("ingest", None)] if ingest else []), *([measure] if numbers else [])]
    jobs += [step("gather", ("measure", "afterany") if numbers else None), step("analyse", ("gather", "afterok"))]
    jobs += [step("book", ("analyse", "afterok"))] if options.book else []
    return [*jobs, step("account", (jobs[-1].name, "afterany"))]


def _ranges(numbers: list[int]) -> str:
    """1,2,3,7 as sbatch has it: 1-3,7."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{low}-{high}" if high > low else f"{low}" for low, high in ranges)


# ------------------------------------------------------------------ submitting


def script_of(jobs: list[Job]) -> str:
    """The chain as a shell script that does the same by hand, and what it starts."""
    lines, ids = [], {}
    for job in jobs:
        ids[job.name] = f"${job.name}"
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in job.variables.items())
        words = [word if word.startswith("--dependency=") else shlex.quote(word) for word in job.command(ids)]
        lines.append(f"{job.name}=$({variables} {' '.join(words)})")
    files = [paths.repo_root() / "slurm" / name for name in dict.fromkeys([job.script for job in jobs] + ["setup.sh"])]
    shown = [
        f"\n# ---------------- {file.relative_to(paths.repo_root())}\n{file.read_text(encoding='utf-8')}"
        for file in files
    ]
    return "\n".join(["set -e", f"cd {shlex.quote(str(paths.repo_root()))}", *lines, *shown])


def submit(run: Run, jobs: list[Job], numbers: list[int]) -> dict[str, str]:
    """Hands the chain to SLURM and notes it in the run; returns the job ids by name.

    Raises:
        DistilbenchError: SLURM is not here, or refuses a job; those before it are cancelled.
    """
    require("sbatch", "scancel")
    _require_room(numbers)
    ids: dict[str, str] = {}
    env = os.environ | site_variables()
    (paths.repo_root() / "slurm_logs").mkdir(exist_ok=True)
    for job in jobs:
        done = _said(job.command(ids), env | job.variables, cwd=paths.repo_root())
        if done.returncode:
            if ids:
                _said(["scancel", *ids.values()])
            raise DistilbenchError(
                f"sbatch refused job {job.name}, nothing is left in the queue: {done.stderr.strip()}"
            )
        ids[job.name] = done.stdout.strip().split(";")[0]  # of several clusters the name follows
    listed = [{"name": name, "id": number} for name, number in ids.items()]
    note = {"submitted": environment.now(), "parts": numbers, "jobs": listed}
    paths.append_line(run.folder / "submissions.jsonl", paths.canonical_json(note).decode())
    run.set_status("pending", f"submitted to SLURM: distilbench status {run.run_id}")
    return ids


def _require_room(numbers: list[int]) -> None:
    """An array's indexes must be below MaxArraySize."""
    said = _said(["scontrol", "show", "config"]).stdout.splitlines()
    known = [line.partition("=")[2].strip() for line in said if line.startswith("MaxArraySize")]
    if known and known[0].isdigit() and max(numbers, default=0) >= int(known[0]):
        raise ParameterError(
            f"{max(numbers) + 1} tasks are more than this cluster's arrays hold (MaxArraySize is {known[0]}): deal the "
            f"work over fewer with --tasks {int(known[0])} or less"
        )


def site_variables() -> dict[str, str]:
    """What slurm/site.env sets (a shell file); nothing where there is none."""
    file = paths.repo_root() / "slurm" / "site.env"
    if not file.is_file():
        return {}
    told = {}
    for source in ("", f". {shlex.quote(str(file))};"):
        done = _said(["bash", "-c", f"set -ae; {source} env -0"])
        if done.returncode:
            raise ParameterError(f"{file} is no shell file of NAME=value lines: {done.stderr.strip()}")
        told[source] = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if "=" in pair)
    before, after = told.values()
    return {name: value for name, value in after.items() if before.get(name) != value and name != "_"}


# ------------------------------------------------------------------ watching


def submissions(run: Run) -> list[dict[str, Any]]:
    """Every submission of a run: when, which parts, which jobs."""
    file = run.folder / "submissions.jsonl"
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def job_ids(run: Run) -> dict[str, str]:
    """Names of all jobs of a run by their ids."""
    return {job["id"]: job["name"] for told in submissions(run) for job in told["jobs"]}


def jobs(run: Run) -> list[dict[str, str]]:
    """What SLURM knows of a run's jobs: `name`, `job`, `state`, `node`, `elapsed`, `why` (of one that waits).

    Those in the queue as squeue says, the others as sacct does, where the cluster has accounting.
    """
    names = job_ids(run)
    if not names:
        return []
    require("squeue")
    queued = _rows(["squeue", "-h", "-r", "-j", ",".join(names), "-o", "%i|%T|%N|%M|%r"])
    found = {row[0]: row[1:] for row in queued if len(row) == 5}
    for row in accounting(list(names), "JobID,State,NodeList,Elapsed,ExitCode"):
        number = row["JobID"]
        if number not in found and row["State"] != "PENDING":  # those that wait stand in the queue, one by one
            why = "" if row["ExitCode"] == "0:0" else f"exit code {row['ExitCode']}"
            found[number] = [row["State"], row["NodeList"], row["Elapsed"], why]
    rows = []
    for number, name in names.items():
        mine = [known for known in found if known.split("_")[0] == number]
        if len(mine) > 1:
            mine = [known for known in mine if known != number]  # an array's own row, once its tasks have theirs
        for known in sorted(mine, key=_order) or [number]:
            state, node, elapsed, why = found.get(known, ["ended", "", "", "the cluster keeps no accounts"])
            rows.append({"name": name, "job": known, "state": state, "node": node, "elapsed": elapsed, "why": why})
    return rows


def _order(job: str) -> list[int]:
    """Sorts 12_3 before 12_10; 12_[4-7] are tasks that never began."""
    return [int(number) for number in re.findall(r"\d+", job)]


def living(run: Run) -> list[str]:
    """Ids of the run's jobs that wait or run."""
    names = job_ids(run)
    if not names:
        return []
    return [row[0] for row in _rows(["squeue", "-h", "-j", ",".join(names), "-o", "%i"])]


def cancel(run: Run) -> list[str]:
    """Cancels what waits or runs; what was measured stays, and the run can be gone on with."""
    require("squeue", "scancel")
    left = living(run)
    if left:
        done = _said(["scancel", *{number.split("_")[0] for number in left}])
        if done.returncode:
            raise DistilbenchError(f"scancel: {done.stderr.strip()}")
    if run.status["state"] != "ok":
        run.set_status("cancelled", f"cancelled; go on with: {run.go_on}")
    return left


def accounting(ids: list[str], fields: str, *more: str) -> list[dict[str, str]]:
    """Rows of sacct; [] where the cluster keeps no accounts. Times are UTC."""
    if not shutil.which("sacct"):
        return []
    command = ["sacct", "-n", "-P", *more, *(["-X"] if not more else []), "-j", ",".join(ids), "-o", fields]
    names = fields.split(",")
    return [dict(zip(names, row, strict=True)) for row in _rows(command) if len(row) == len(names)]


# ------------------------------------------------------------------ afterwards


def settle(run: Run) -> list[str]:
    """Records how attempts ended that could not say so (killed, timed out, node lost); returns what it recorded."""
    said: list[str] = []
    if not shutil.which("scontrol"):  # gathered somewhere else
        return said
    for attempt in parts.attempts(run):
        told = parts.about(attempt)
        if told["state"] not in UNTOLD or not told["slurm"]["job_id"]:
            continue
        if (ended := _end_of(told)) and (told["state"] == "running" or ended in TERMINATED):
            parts.end(attempt, *ended)
            said.append(f"part {told['part']} on {told['node']}: {ended[0]}: {ended[1]}")
    return said


def _end_of(told: dict[str, Any]) -> tuple[str, str] | None:
    """State and message of an attempt whose process is silent; None while its job runs."""
    number, restarts = told["slurm"]["job_id"], int(told["slurm"]["restart_count"] or 0)
    said = _said(["scontrol", "show", "job", "--oneliner", number]).stdout
    now = dict(word.partition("=")[::2] for word in said.split())
    if now.get("JobState") in ALIVE and int(now.get("Restarts", 0)) == restarts:
        return None
    started = datetime.strptime(told["started"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    rows = accounting([number], "JobIDRaw,State,Start,End", "-X", "-D")
    rows = [row for row in rows if row["JobIDRaw"] == number and (begun := _time(row["Start"])) and begun <= started]
    state = max(rows, key=lambda row: row["Start"])["State"] if rows else now.get("JobState", "")
    return STATES.get(state.split(" ")[0], ("failed", f"{parts.LOST}; SLURM says {state or 'nothing'}"))


def _time(said: str) -> datetime | None:
    try:
        return datetime.strptime(said, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:  # Unknown, None
        return None


def account(run: Run) -> Path:
    """Writes slurm_jobs.json: the final figures of every job, task, step and attempt; returns the file.

    Consumed energy of 0 or nothing was not measured, and is null with that reason.
    """
    require("sacct")
    rows = accounting(list(job_ids(run)), ",".join(FIELDS), "-D")
    for row in rows:
        joules = row.pop("ConsumedEnergyRaw")
        measured = joules.isdigit() and int(joules) > 0
        row |= {"consumed_energy_J": int(joules)} if measured else {"consumed_energy_J": None, "reason": NO_ENERGY}
    file = run.folder / "slurm_jobs.json"
    told = {"schema_version": 1, "collected": environment.now(), "times": "UTC", "jobs": rows}
    paths.write_json(file, told | ({} if rows else {"reason": "sacct knows none of the jobs: no accounting here?"}))
    return file


# ------------------------------------------------------------------ calls


def require(*programs: str) -> None:
    """Refuses where SLURM is not installed.

    Raises:
        DistilbenchError: one of its programs is not on the PATH.
    """
    if missing := [program for program in programs if not shutil.which(program)]:
        raise DistilbenchError(
            f"{', '.join(missing)} not on the PATH: this is no machine of a SLURM cluster. Without one: distilbench run"
        )


def _rows(command: list[str]) -> list[list[str]]:
    return [line.split("|") for line in _said(command).stdout.splitlines() if line]


def _said(command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> Any:
    env = env or os.environ | {"TZ": "UTC0"}  # what is only read has its times in UTC
    try:
        return subprocess.run(
            command, capture_output=True, check=False, env=env, cwd=cwd, timeout=120, encoding="utf-8", errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise DistilbenchError(f"{command[0]} did not answer within two minutes") from None
    except FileNotFoundError:
        raise DistilbenchError(f"{command[0]} is not on the PATH: this is no machine of a SLURM cluster") from None
