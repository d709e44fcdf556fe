"""What became of a run's jobs: in the queue, in the accounts, cancelled; and how attempts at its parts ended."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import SlurmError
from distilbench.execution import slurm
from distilbench.harness import shards
from distilbench.machine import environment
from distilbench.runs.folder import Run

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
UNEXPLAINED = ("running", "cancelled")  # of an attempt: killed without a word, or asked to end (SIGTERM) but not why
#: What else than a cancelled job SIGTERM can mean; also a node that was believed lost and lives on is asked to end.
TERMINATED = [STATES[name] for name in ("PREEMPTED", "REQUEUED", "TIMEOUT", "DEADLINE", "NODE_FAIL")]
ALIVE = ("RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING", "STOPPED", "SIGNALING", "STAGE_OUT")
FIELDS = (
    "JobID", "JobName", "Partition", "State", "ExitCode", "Start", "End", "ElapsedRaw", "NodeList", "AllocCPUS",
    "AllocTRES", "TotalCPU", "MaxRSS", "ConsumedEnergyRaw",
)  # fmt: skip
UNKNOWN = "unknown"  # the state of a job while SLURM does not answer
NO_ENERGY = "SLURM's ConsumedEnergy is 0 or empty: not measured"


def submissions(run: Run) -> list[dict[str, Any]]:
    """Every submission of a run: when, which parts, which jobs."""
    file = run.folder / "submissions.jsonl"
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def job_ids(run: Run) -> dict[str, str]:
    """Names of all jobs of a run by their ids."""
    return {job["id"]: job["name"] for one in submissions(run) for job in one["jobs"]}


def _by_cluster(run: Run) -> dict[str, list[str]]:
    """The ids of a run's jobs by the cluster that they are on; "" is the one that is asked by itself."""
    ids: dict[str, list[str]] = {}
    for job in (job for one in submissions(run) for job in one["jobs"]):
        ids.setdefault(job.get("cluster", ""), []).append(job["id"])
    return ids


def jobs(run: Run) -> list[dict[str, str]]:
    """What SLURM knows of a run's jobs: `name`, `job`, `state`, `node`, `elapsed`, `why` (of one that waits).

    Those in the queue as squeue says, the others as sacct does, where the cluster has accounting. While squeue does not
    answer, the state of each is `UNKNOWN`, with the reason.
    """
    names = job_ids(run)
    try:
        queue = {row["JOBID"]: _state(row["STATE"], row["NODELIST"], row["TIME"], row["REASON"]) for row in _queue(run)}
    except SlurmError as error:
        return [{"name": name, "job": number} | _state(UNKNOWN, why=str(error)) for number, name in names.items()]
    accounts, silence = _ended(run)
    known, rows = accounts | queue, []
    for number, name in names.items():
        own = [job for job in known if job.split("_")[0] == number]
        if len(own) > 1:
            own = [job for job in own if job != number]  # an array's own row, once its tasks have theirs
        # 12_3 before 12_10; 12_[4-7] are tasks that never started
        for job in sorted(own, key=lambda job: [int(part) for part in re.findall(r"\d+", job)]) or [number]:
            rows.append({"name": name, "job": job} | known.get(job, _state("ended", why=silence)))
    return rows


def _state(state: str, node: str = "", elapsed: str = "", why: str = "") -> dict[str, str]:
    return {"state": state, "node": node, "elapsed": elapsed, "why": why}


def _ended(run: Run) -> tuple[dict[str, dict[str, str]], str]:
    """The states of jobs that sacct knows, and why it says nothing of the others."""
    fields = "JobID,State,NodeList,Elapsed,ExitCode"
    try:
        asked = [slurm.accounting(ids, fields, "-X", cluster=cluster) for cluster, ids in _by_cluster(run).items()]
    except SlurmError as error:
        return {}, str(error)
    ended = {}
    for row in (row for rows in asked for row in rows or []):
        # The queue has been asked before: what it no longer has waits or runs only in accounts that lag behind.
        if row["State"] not in ("PENDING", *ALIVE):
            why = "" if row["ExitCode"] == "0:0" else f"exit code {row['ExitCode']}"
            ended[row["JobID"]] = _state(row["State"], row["NodeList"], row["Elapsed"], why)
    return ended, "the cluster keeps no accounts" if None in asked else "not in the cluster's accounts (yet)"


def living(run: Run) -> list[str]:
    """Ids of the run's jobs and tasks that wait or run; a SlurmError while nobody knows."""
    return [row["JOBID"] for row in _queue(run)]


def _queue(run: Run) -> list[dict[str, str]]:
    """The run's jobs and tasks in the queue, fields as in `slurm.QUEUE`."""
    if by_cluster := _by_cluster(run):
        slurm.require("squeue")
    return [row for cluster, ids in by_cluster.items() for row in slurm.queued(ids, cluster)]


def cancel(run: Run) -> list[str]:
    """Cancels what waits or runs, and returns it; what was measured stays, and the run can be resumed."""
    slurm.require("squeue", "scancel")
    left = living(run)
    numbers = {job.split("_")[0] for job in left}
    by_cluster = _by_cluster(run)
    failed = slurm.cancel({cluster: [one for one in by_cluster[cluster] if one in numbers] for cluster in by_cluster})
    remaining = [row for row in _queue(run) if row["STATE"] != "COMPLETING"] if failed else []
    if remaining:  # else they ended by themselves meanwhile, or are about to
        raise SlurmError(f"{len(remaining)} jobs of run {run.run_id} are not cancelled: {'; '.join(failed)}")
    if run.status["state"] != "ok":
        run.set_status("cancelled", f"cancelled; to resume: {run.resume_command}")
    return left


# ------------------------------------------------------------------ afterwards


def settle(run: Run) -> list[str]:
    """Records how attempts ended that could not say so (killed, timed out, node lost); returns what it recorded.

    While SLURM does not answer they stay as they are, which is a message too: a later call may learn it.
    """
    messages: list[str] = []
    if not shutil.which("scontrol"):  # gathered somewhere else
        return messages
    clusters = {number: cluster for cluster, ids in _by_cluster(run).items() for number in ids}
    for attempt in shards.attempts(run):
        about = shards.about(attempt)
        job, part = about["slurm"], f"part {about['part']} on {about['node']}"
        if about["state"] not in UNEXPLAINED or not job["job_id"]:
            continue
        try:
            end = _end_of(job, about["started"], clusters.get(job.get("array_job_id") or job["job_id"], ""))
        except SlurmError as error:  # nor will it answer for the others
            return [*messages, f"{part}: how it ended is not known yet: {error}"]
        if end and (about["state"] == "running" or end in TERMINATED):
            shards.end(attempt, *end)
            messages.append(f"{part}: {end[0]}: {end[1]}")
    return messages


def _end_of(job: dict[str, Any], started: str, cluster: str) -> tuple[str, str] | None:
    """State and message of an attempt whose process is silent; None while its job runs."""
    number, array, task = job["job_id"], job.get("array_job_id"), job["array_task_id"]  # earlier versions: no array
    name = f"{array}_{task}" if array and task else number
    now = slurm.described(name, number, cluster)
    same = int(now.get("Restarts", 0)) == int(job["restart_count"] or 0)
    if now.get("JobState") in ALIVE and same:
        return None
    try:
        rows = slurm.accounting([name], "JobID,JobIDRaw,State,Start,End", "-X", "-D", cluster=cluster) or []
    except SlurmError:
        if not (now and same):  # else the controller has said all
            raise
        rows = []
    own = [row for row in rows if row["JobIDRaw"] == number and row["JobID"].endswith(f"_{task}" if task else "")]
    # A requeued job has a row per start, and the attempt's is the last before it; "Unknown" sorts after all of them.
    before = [row for row in own if row["Start"] <= started]
    state = max(before, key=lambda row: row["Start"])["State"] if before else now.get("JobState", "") if same else ""
    return STATES.get(state.split(" ")[0], ("failed", f"{shards.LOST}; SLURM says {state or 'nothing'}"))


def account(run: Run) -> Path:
    """Writes slurm_jobs.json: what SLURM counted for every job and each of its starts; returns the file.

    Consumed energy of 0 or nothing was not measured, and is null with that reason.
    """
    slurm.require("sacct")
    fields = ",".join(FIELDS)
    asked = [slurm.accounting(ids, fields, "-D", cluster=cluster) for cluster, ids in _by_cluster(run).items()]
    rows: list[dict[str, Any]] = [row for answer in asked for row in answer or []]
    for row in rows:
        joules = row.pop("ConsumedEnergyRaw")
        measured = joules.isdigit() and int(joules) > 0
        row |= {"consumed_energy_J": int(joules)} if measured else {"consumed_energy_J": None, "reason": NO_ENERGY}
    content = {"schema_version": 1, "collected": environment.now(), "times": "UTC", "jobs": rows}
    if not rows:
        content["reason"] = "the cluster keeps no accounts" if None in asked else "sacct knows none of the jobs"
    file = run.folder / "slurm_jobs.json"
    paths.write_json(file, content)
    return file
