"""The job of SLURM that this process is in: how scontrol describes it, and the energy that SLURM counted for it.

No answer about one job is taken for another's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any

from distilbench.errors import SlurmError

#: Of `scontrol show job --details`: what was allocated and how it is bound; no user, no account, no paths.
SLURM_JOB = (
    "JobId", "ArrayJobId", "ArrayTaskId", "JobName", "Restarts", "Requeue", "TimeLimit", "SubmitTime", "StartTime",
    "Partition", "NodeList", "BatchHost", "NumNodes", "NumCPUs", "NumTasks", "CPUs/Task", "ReqTRES", "AllocTRES",
    "TRES", "OverSubscribe", "Nodes", "CPU_IDs", "Mem", "GRES", "MinMemoryNode", "MinMemoryCPU", "Features",
    "TresPerNode", "TresPerTask",
)  # fmt: skip
ANSWER_S = 30.0  # in which a program must answer
NO_VALUE = 0xFFFFFFFE  # from here on SLURM's numbers, of 32 bits and of 64, mean that there is none (slurm.h, NO_VAL)


def read() -> tuple[dict[str, str] | None, str | None]:
    """Allocation, binding, shared or exclusive; and why these are not known. Both are None outside a job.

    `OverSubscribe` tells whether others may be on the node (NO: exclusive), `CPU_IDs` and `GRES` what is bound to it.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None, None
    try:
        line = line_of(answer("scontrol", "show", "job", "--details", "--oneliner", name(job)), job)
    except SlurmError as error:
        return None, str(error)
    return (fields(line), None) if line else (None, f"scontrol did not describe job {job}")


def answer(*command: str) -> str:
    """What a program of SLURM prints.

    Raises:
        SlurmError: it fails, or does not answer.
    """
    done = ended(command, ANSWER_S)
    if done.returncode:
        raise SlurmError(f"{command[0]}: {done.stderr.strip() or f'it ended with code {done.returncode}'}")
    return done.stdout


def ended(command: Sequence[str], timeout_s: float, **how: Any) -> subprocess.CompletedProcess[str]:
    """A program of SLURM that ended, well or not; `how` as `subprocess.run` takes it.

    Raises:
        SlurmError: it cannot be started, or did not end in time.
    """
    how |= {"capture_output": True, "stdin": subprocess.DEVNULL, "encoding": "utf-8", "errors": "replace"}
    try:
        return subprocess.run(command, timeout=timeout_s, check=False, **how)
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise SlurmError(f"{command[0]} cannot be started: {error.strerror}; is this a machine of a cluster?") from None


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


def energy_type(config: str) -> str:
    """What gathers energy according to `scontrol show config`; "" when it does not say."""
    lines = [line.partition("=") for line in config.splitlines()]
    kinds = [value.strip() for key, _, value in lines if key.strip() == "AcctGatherEnergyType"]
    return kinds[0].removeprefix("acct_gather_energy/").replace("(null)", "none") if kinds else ""


def consumed_energy_J(text: str, job: str) -> float | None:
    """The largest number of `sstat ... -o JobID,ConsumedEnergyRaw`, a line per step; None when none is above 0.

    Steps of one job see the same nodes, so they are not added. Of an array sstat lists the steps of all tasks,
    whichever was asked for: those of others are left out.

    Raises:
        SlurmError: no line is about this job (sstat ends with code 0 also where the controller does not answer).
    """
    rows = [line.partition("|") for line in text.splitlines()]
    mine = [joules for step, _, joules in rows if step.split(".")[0] in (job, name(job))]
    if not mine:
        raise SlurmError(f"sstat said nothing of job {job}")
    numbers = [joules for shown in mine if shown.isdigit() and 0 < (joules := int(shown)) < NO_VALUE]
    return float(max(numbers)) if numbers else None
