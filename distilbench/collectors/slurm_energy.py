"""What SLURM says of energy: what it counts with, and what it counted for this job."""

from __future__ import annotations

import subprocess

from distilbench.errors import DistilbenchError
from distilbench.machine import slurm_job

NO_VALUE = 0xFFFFFFFE  # from here on SLURM's numbers, of 32 bits and of 64, mean that there is none (slurm.h, NO_VAL)


def slurm_energy_type(config: str) -> str:
    """What gathers energy according to `scontrol show config`; "" when it does not say."""
    lines = [line.partition("=") for line in config.splitlines()]
    kinds = [value.strip() for key, _, value in lines if key.strip() == "AcctGatherEnergyType"]
    return kinds[0].removeprefix("acct_gather_energy/").replace("(null)", "none") if kinds else ""


def consumed_energy_J(text: str, job: str) -> float | None:
    """The largest number of `sstat ... -o JobID,ConsumedEnergyRaw`, a line per step; None when none is above 0.

    Steps of one job see the same nodes, so they are not added. Of an array sstat lists the steps of all tasks,
    whichever was asked for: those of others are left out.

    Raises:
        DistilbenchError: no line is about this job (sstat ends with code 0 also where the controller does not answer).
    """
    rows = [line.partition("|") for line in text.splitlines()]
    mine = [joules for step, _, joules in rows if step.split(".")[0] in (job, slurm_job.name(job))]
    if not mine:
        raise DistilbenchError(f"sstat said nothing of job {job}")
    numbers = [joules for shown in mine if shown.isdigit() and 0 < (joules := int(shown)) < NO_VALUE]
    return float(max(numbers)) if numbers else None


def answer_of(*command: str) -> str:
    """What a program of SLURM prints.

    Raises:
        DistilbenchError: it fails, or does not answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False, encoding="utf-8", errors="replace")
    except subprocess.TimeoutExpired:
        raise DistilbenchError(f"{command[0]} did not answer within 30 s") from None
    except OSError as error:
        raise DistilbenchError(f"{command[0]} cannot be started: {error.strerror}") from None
    if done.returncode:
        raise DistilbenchError(f"{command[0]}: {done.stderr.strip() or f'it ended with code {done.returncode}'}")
    return done.stdout
