"""The job of SLURM that this process is in, as scontrol describes it; no query of one job is taken for another's."""

from __future__ import annotations

import os
import subprocess

#: Of `scontrol show job --details`: what was allocated and how it is bound; no user, no account, no paths.
SLURM_JOB = (
    "JobId", "ArrayJobId", "ArrayTaskId", "JobName", "Restarts", "Requeue", "TimeLimit", "SubmitTime", "StartTime",
    "Partition", "NodeList", "BatchHost", "NumNodes", "NumCPUs", "NumTasks", "CPUs/Task", "ReqTRES", "AllocTRES",
    "TRES", "OverSubscribe", "Nodes", "CPU_IDs", "Mem", "GRES", "MinMemoryNode", "MinMemoryCPU", "Features",
    "TresPerNode", "TresPerTask",
)  # fmt: skip
SCONTROL_S = 30.0  # in which it must answer


def read() -> tuple[dict[str, str] | None, str | None]:
    """Allocation, binding, shared or exclusive; and why these are not known. Both are None outside a job.

    `OverSubscribe` tells whether others may be on the node (NO: exclusive), `CPU_IDs` and `GRES` what is bound to it.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None, None
    command = ["scontrol", "show", "job", "--details", "--oneliner", name(job)]
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=SCONTROL_S, encoding="utf-8", errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"scontrol: {error}"
    if done.returncode:
        return None, f"scontrol: {done.stderr.strip() or f'exit code {done.returncode}'}"
    line = line_of(done.stdout, job)
    return (fields(line), None) if line else (None, f"scontrol did not describe job {job}")


def name(job: str) -> str:
    """A job of this process's array task as SLURM's programs name it alone: 33_1; else the number that was given.

    The last task of an array has the array's own number, and where that is given all of its tasks are meant.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else job


def line_of(text: str, job: str) -> str:
    """The line of `scontrol show job --oneliner` that is about this job number and no other task; "" without one."""
    return next((line for line in text.splitlines() if line.split(" ", 1)[0] == f"JobId={job}"), "")


def fields(line: str) -> dict[str, str]:
    """The fields of SLURM_JOB in a line of `scontrol show job --details --oneliner`; empty ones are left out."""
    pairs = (word.partition("=") for word in line.split())
    return {key: value for key, _, value in pairs if key in SLURM_JOB and value not in ("", "(null)", "N/A")}
