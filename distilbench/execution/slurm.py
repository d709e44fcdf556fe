"""SLURM: the chain of jobs that measures a run, what became of them, and what they used.

A thin layer over sbatch, squeue, scontrol, scancel and sacct, with options and fields that SLURM 21.08 has. What a job
does is written in slurm/*.slurm, for people to read and edit.

No answer is believed unseen: a program must end with code 0, and a list is one only below its header (some sites print
banners). A controller that does not answer says nothing of a job, and least of all that it has ended.
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

from distilbench import paths
from distilbench.errors import ParameterError, SlurmError
from distilbench.harness import shards
from distilbench.machine import environment, slurm_job
from distilbench.runs.folder import Run

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
QUEUE = {"JOBID": "%i", "STATE": "%T", "NODELIST": "%N", "TIME": "%M", "REASON": "%r"}  # header and format of squeue
SUBMITTED = re.compile(r"(\d+)(?:;([\w.-]+))?")  # what sbatch --parsable prints: the job, and of several clusters which
A_JOB = re.compile(r"\d+(?:[_+.].*)?")  # also 12_3, 12_[4-7], 12.batch
UNKNOWN = "unknown"  # the state of a job while SLURM does not answer
FORGOTTEN = "Invalid job id"  # how a controller says that a job ended long ago; the same in all versions
NO_ACCOUNTS = "accounting storage is disabled"
TIMEOUT_S = 120.0  # of one call
#: Variables that narrow down what these programs list or cancel, or change how they write a time.
NARROWING = ("SQUEUE_", "SACCT_", "SCANCEL_", "SLURM_TIME_FORMAT")
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
        waits: list[str] = []
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
        lines.append(f"{job.name}=$({variables} {' '.join(words)} | id)")
    files = [paths.repo_root() / "slurm" / name for name in dict.fromkeys([job.script for job in jobs] + ["setup.sh"])]
    shown = [
        f"\n# ---------------- {file.relative_to(paths.repo_root())}\n{file.read_text(encoding='utf-8')}"
        for file in files
    ]
    number = r"id() { sed -nE 's/^([0-9]+)(;.*)?$/\1/p' | grep .; }  # of a job, without what else a site prints"
    return "\n".join(["set -eo pipefail", number, f"cd {shlex.quote(str(paths.repo_root()))}", *lines, *shown])


def submit(run: Run, jobs: list[Job], numbers: list[int]) -> dict[str, str]:
    """Hands the chain to SLURM and notes it in the run; returns the job ids by name.

    Raises:
        SlurmError: SLURM is not here, refuses a job or does not say its number; what was submitted is cancelled.
    """
    require("sbatch", "scancel")
    _require_room(numbers)
    made: list[dict[str, str]] = []
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_ARRAY_")}
    env = inherited | site_variables()
    (paths.repo_root() / "slurm_logs").mkdir(exist_ok=True)
    for job in jobs:
        try:
            made.append({"name": job.name} | _submitted(job, made, env))
        except SlurmError as error:
            raise SlurmError(f"sbatch refused job {job.name}, {_withdraw(job, made)}: {error}") from None
    note = {"submitted": environment.now(), "parts": numbers, "jobs": made}
    paths.append_line(run.folder / "submissions.jsonl", paths.canonical_json(note).decode())
    run.set_status("pending", f"submitted to SLURM: distilbench status {run.run_id}")
    return {one["name"]: one["id"] for one in made}


def _submitted(job: Job, before: list[dict[str, str]], env: dict[str, str]) -> dict[str, str]:
    """Hands one job to SLURM: its `id`, and the `cluster` where sbatch names one; the whole chain must be on that."""
    command = job.command({one["name"]: one["id"] for one in before})
    where = before[0].get("cluster", "") if before else ""
    command[1:1] = [f"--clusters={where}"] if where else []
    said = _answer(command, env | job.variables, cwd=paths.repo_root())
    found = [match for line in said.splitlines() if (match := SUBMITTED.fullmatch(line.strip()))]
    if len(found) != 1:
        raise SlurmError(f"of what it printed {'more than one' if found else 'no'} line is a job id: {said.strip()!r}")
    number, cluster = found[0][1], found[0][2] or ""
    if before and cluster != where:
        _cancel_all({cluster: [number]})
        raise SlurmError(f"it went to cluster {cluster or '(none)'!r}, the jobs before it to {where or '(none)'!r}")
    return {"id": number} | ({"cluster": cluster} if cluster else {})


def _withdraw(job: Job, made: list[dict[str, str]]) -> str:
    """Cancels the jobs of a chain that came to nothing; says what is left.

    Also the one that failed, by its name: a controller that answers too late has it in the queue all the same.
    """
    where = made[0].get("cluster", "") if made else ""
    name = next(word.partition("=")[2] for word in reversed(job.flags) if word.startswith("--job-name="))
    failed = [*_cancel_all({where: [one["id"] for one in made]}), *_cancel_all({where: [f"--name={name}"]})]
    if not failed:
        return "nothing is left in the queue"
    known = " ".join(one["id"] for one in made)
    return f"and the queue may still hold {known} {name} (cancel them by hand; {'; '.join(failed)})".replace("  ", " ")


def _cancel_all(ids: dict[str, list[str]]) -> list[str]:
    """Cancels jobs, given by cluster; returns what went wrong."""
    failed = []
    for cluster, numbers in ids.items():
        try:
            if numbers:
                _answer(["scancel", *_on(cluster), *numbers])
        except SlurmError as error:
            failed.append(str(error))
    return failed


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
    for source in ("", f". {shlex.quote(str(file))} >&2;"):  # what it prints is no variable
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


def _by_cluster(run: Run) -> dict[str, list[str]]:
    """The ids of a run's jobs by the cluster that they are on; "" is the one that is asked by itself."""
    found: dict[str, list[str]] = {}
    for told in submissions(run):
        for job in told["jobs"]:
            found.setdefault(job.get("cluster", ""), []).append(job["id"])
    return found


def _on(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []


def jobs(run: Run) -> list[dict[str, str]]:
    """What SLURM knows of a run's jobs: `name`, `job`, `state`, `node`, `elapsed`, `why` (of one that waits).

    Those in the queue as squeue says, the others as sacct does, where the cluster has accounting. While squeue does not
    answer, the state of each is `UNKNOWN`, with the reason.
    """
    names = job_ids(run)
    try:
        found = {row[0]: row[1:] for row in _queue(run)}
    except SlurmError as error:
        return [_row(name, number, [UNKNOWN, "", "", str(error)]) for number, name in names.items()]
    accounts, untold = _ended(run)
    found = accounts | found
    rows = []
    for number, name in names.items():
        mine = [known for known in found if known.split("_")[0] == number]
        if len(mine) > 1:
            mine = [known for known in mine if known != number]  # an array's own row, once its tasks have theirs
        rows += [_row(name, k, found.get(k, ["ended", "", "", untold])) for k in sorted(mine, key=_order) or [number]]
    return rows


def _row(name: str, job: str, said: list[str]) -> dict[str, str]:
    state, node, elapsed, why = said
    return {"name": name, "job": job, "state": state, "node": node, "elapsed": elapsed, "why": why}


def _ended(run: Run) -> tuple[dict[str, list[str]], str]:
    """State, node, duration and exit code of the jobs that sacct knows, and why it says nothing of the others."""
    rows, untold = [], "not in the cluster's accounts (yet)"
    try:
        for cluster, ids in _by_cluster(run).items():
            if (told := accounting(ids, "JobID,State,NodeList,Elapsed,ExitCode", cluster=cluster)) is None:
                untold = "the cluster keeps no accounts"
            rows += told or []
    except SlurmError as error:
        untold = str(error)
    found = {}
    for row in rows:
        # The queue has been asked before: what it no longer has waits or runs only in accounts that lag behind.
        if row["State"] not in ("PENDING", *ALIVE):
            why = "" if row["ExitCode"] == "0:0" else f"exit code {row['ExitCode']}"
            found[row["JobID"]] = [row["State"], row["NodeList"], row["Elapsed"], why]
    return found, untold


def _order(job: str) -> list[int]:
    """Sorts 12_3 before 12_10; 12_[4-7] are tasks that never began."""
    return [int(number) for number in re.findall(r"\d+", job)]


def living(run: Run) -> list[str]:
    """Ids of the run's jobs and tasks that wait or run.

    Raises:
        SlurmError: squeue does not say, so that nobody knows.
    """
    return [row[0] for row in _queue(run)]


def _queue(run: Run) -> list[list[str]]:
    """The run's jobs and tasks in the queue, fields as in `QUEUE`."""
    by_cluster = _by_cluster(run)
    if by_cluster:
        require("squeue")
    return [row for cluster, ids in by_cluster.items() for row in _queued(ids, cluster)]


def _queued(ids: list[str], cluster: str) -> list[list[str]]:
    """Of those jobs the ones in the queue; that the controller has forgotten one is an answer too: it has ended."""
    command = ["squeue", *_on(cluster), "-r", "-j", ",".join(ids), "-o", "|".join(QUEUE.values())]
    done = _said(command)
    if done.returncode and FORGOTTEN in done.stderr:
        return [row for one in ids for row in _queued([one], cluster)] if len(ids) > 1 else []
    return _below_header(_checked(command, done), list(QUEUE))


def cancel(run: Run) -> list[str]:
    """Cancels what waits or runs; what was measured stays, and the run can be gone on with.

    Raises:
        SlurmError: SLURM does not say what is left, or does not cancel it.
    """
    require("squeue", "scancel")
    left = living(run)
    alone = {number.split("_")[0] for number in left}
    by_cluster = {cluster: [one for one in ids if one in alone] for cluster, ids in _by_cluster(run).items()}
    failed = _cancel_all(by_cluster)
    still = [row for row in _queue(run) if row[1] != "COMPLETING"] if failed else []
    if still:  # else they ended by themselves meanwhile, or are about to
        raise SlurmError(f"{len(still)} jobs of run {run.run_id} are not cancelled: {'; '.join(failed)}")
    if run.status["state"] != "ok":
        run.set_status("cancelled", f"cancelled; go on with: {run.resume_command}")
    return left


def accounting(ids: list[str], fields: str, *more: str, cluster: str = "") -> list[dict[str, str]] | None:
    """Rows of sacct; None where the cluster keeps no accounts. Times are UTC.

    Raises:
        SlurmError: it keeps them, and they cannot be read just now.
    """
    if not shutil.which("sacct"):
        return None
    command = ["sacct", *_on(cluster), "-P", *more, *(["-X"] if not more else []), "-j", ",".join(ids), "-o", fields]
    done = _said(command)
    if done.returncode and NO_ACCOUNTS in done.stderr + done.stdout:
        return None
    names = fields.split(",")
    return [dict(zip(names, row, strict=True)) for row in _below_header(_checked(command, done), names)]


# ------------------------------------------------------------------ afterwards


def settle(run: Run) -> list[str]:
    """Records how attempts ended that could not say so (killed, timed out, node lost); returns what it recorded.

    While SLURM does not answer they stay as they are, which is said too: a later call may learn it.
    """
    said: list[str] = []
    if not shutil.which("scontrol"):  # gathered somewhere else
        return said
    for attempt in shards.attempts(run):
        told = shards.about(attempt)
        if told["state"] not in UNTOLD or not told["slurm"]["job_id"]:
            continue
        try:
            ended = _end_of(told, _cluster_of(run, told))
        except SlurmError as error:  # nor will it answer for the others
            return [*said, f"part {told['part']} on {told['node']}: how it ended is not known yet: {error}"]
        if ended and (told["state"] == "running" or ended in TERMINATED):
            shards.end(attempt, *ended)
            said.append(f"part {told['part']} on {told['node']}: {ended[0]}: {ended[1]}")
    return said


def _cluster_of(run: Run, told: dict[str, Any]) -> str:
    """The cluster that an attempt's job is on."""
    its = told["slurm"].get("array_job_id") or told["slurm"]["job_id"]
    return next((cluster for cluster, ids in _by_cluster(run).items() if its in ids), "")


def _end_of(told: dict[str, Any], cluster: str = "") -> tuple[str, str] | None:
    """State and message of an attempt whose process is silent; None while its job runs.

    Raises:
        SlurmError: SLURM does not say.
    """
    number, restarts = told["slurm"]["job_id"], int(told["slurm"]["restart_count"] or 0)
    array, task = told["slurm"].get("array_job_id"), told["slurm"]["array_task_id"]  # earlier versions noted no array
    name = f"{array}_{task}" if array and task else number
    now = _now(name, number, cluster)
    same = int(now.get("Restarts", 0)) == restarts
    if now.get("JobState") in ALIVE and same:
        return None
    started = datetime.strptime(told["started"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    try:
        rows = accounting([name], "JobID,JobIDRaw,State,Start,End", "-X", "-D", cluster=cluster) or []
    except SlurmError:
        if not (now and same):  # else the controller has told all
            raise
        rows = []
    mine = [row for row in rows if row["JobIDRaw"] == number and row["JobID"].endswith(f"_{task}" if task else "")]
    begun = [row for row in mine if (at := _time(row["Start"])) and at <= started]
    state = max(begun, key=lambda row: row["Start"])["State"] if begun else now.get("JobState", "") if same else ""
    return STATES.get(state.split(" ")[0], ("failed", f"{shards.LOST}; SLURM says {state or 'nothing'}"))


def _now(name: str, number: str, cluster: str) -> dict[str, str]:
    """What the controller says of a job just now; {} when it has forgotten it."""
    command = ["scontrol", *_on(cluster), "show", "job", "--oneliner", name]
    done = _said(command)
    if done.returncode and FORGOTTEN in done.stderr:
        return {}
    if not (line := slurm_job.line_of(_checked(command, done), number)):
        raise SlurmError(f"scontrol show job {name} did not describe job {number}: {done.stdout.strip()[:200]!r}")
    return dict(word.partition("=")[::2] for word in line.split())


def _time(said: str) -> datetime | None:
    try:
        return datetime.strptime(said, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:  # Unknown, None
        return None


def account(run: Run) -> Path:
    """Writes slurm_jobs.json: the final figures of every job, task, step and attempt; returns the file.

    Consumed energy of 0 or nothing was not measured, and is null with that reason.

    Raises:
        SlurmError: the accounts cannot be read just now.
    """
    require("sacct")
    asked = [accounting(ids, ",".join(FIELDS), "-D", cluster=cluster) for cluster, ids in _by_cluster(run).items()]
    rows: list[dict[str, Any]] = [row for told in asked for row in told or []]
    for row in rows:
        joules = row.pop("ConsumedEnergyRaw")
        measured = joules.isdigit() and int(joules) > 0
        row |= {"consumed_energy_J": int(joules)} if measured else {"consumed_energy_J": None, "reason": NO_ENERGY}
    file = run.folder / "slurm_jobs.json"
    told = {"schema_version": 1, "collected": environment.now(), "times": "UTC", "jobs": rows}
    why = "the cluster keeps no accounts" if None in asked else "sacct knows none of the jobs"
    paths.write_json(file, told | ({} if rows else {"reason": why}))
    return file


# ------------------------------------------------------------------ calls


def silence() -> str:
    """Why SLURM's controller does not answer; "" when it does."""
    try:
        _answer(["sinfo", "-h", "-o", "%P"])
    except SlurmError as error:
        return str(error)
    return ""


def require(*programs: str) -> None:
    """Refuses where SLURM is not installed.

    Raises:
        SlurmError: one of its programs is not on the PATH.
    """
    if missing := [program for program in programs if not shutil.which(program)]:
        raise SlurmError(
            f"{', '.join(missing)} not on the PATH: this is no machine of a SLURM cluster. Without one: distilbench run"
        )


def _below_header(said: str, names: list[str]) -> list[list[str]]:
    """The rows of a list below its header; without one there was no answer. What is no row of it is a site's banner.

    Raises:
        SlurmError: there is no header.
    """
    lines = said.splitlines()
    header = "|".join(names).casefold()
    first = next((number for number, line in enumerate(lines) if line.strip().casefold() == header), None)
    if first is None:
        raise SlurmError(f"an answer that is not understood: {said.strip()[:200]!r}; wanted: a list below {header}")
    rows = [line.split("|") for line in lines[first + 1 :]]
    return [row for row in rows if len(row) == len(names) and A_JOB.fullmatch(row[0])]


def _answer(command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    return _checked(command, _said(command, env, cwd))


def _checked(command: list[str], done: subprocess.CompletedProcess) -> str:
    """What a program printed that ended well.

    Raises:
        SlurmError: it did not.
    """
    if done.returncode:
        why = done.stderr.strip() or done.stdout.strip()[:200] or "it said nothing"
        raise SlurmError(f"{command[0]} ended with code {done.returncode}: {why}")
    return done.stdout


def _said(
    command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    if env is None:  # what is only read has its times in UTC, and nothing is left out
        env = {name: value for name, value in os.environ.items() if not name.startswith(NARROWING)} | {"TZ": "UTC0"}
    try:
        return subprocess.run(
            command, capture_output=True, check=False, env=env, cwd=cwd, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise SlurmError(f"{command[0]} cannot be started: {error.strerror}; is this a machine of a cluster?") from None
