"""SLURM's programs and what they answer, with options and fields that SLURM 21.08 has.

No answer is believed unseen: a program must end with code 0, and a list is one only below its header (some sites print
banners). A controller that does not answer says nothing of a job, and least of all that it has ended.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from distilbench.errors import SlurmError
from distilbench.machine import slurm_job

QUEUE = {"JOBID": "%i", "STATE": "%T", "NODELIST": "%N", "TIME": "%M", "REASON": "%r"}  # header and format of squeue
A_JOB = re.compile(r"\d+(?:[_+.].*)?")  # also 12_3, 12_[4-7], 12.batch
FORGOTTEN = "Invalid job id"  # how a controller says that a job ended long ago; the same in all versions
NO_ACCOUNTS = "accounting storage is disabled"
TIMEOUT_S = 120.0  # of one call
#: Variables that narrow down what these programs list or cancel, or change how they write a time.
NARROWING = ("SQUEUE_", "SACCT_", "SCANCEL_", "SLURM_TIME_FORMAT")


def require(*programs: str) -> None:
    """Refuses where SLURM is not installed."""
    if missing := [program for program in programs if not shutil.which(program)]:
        raise SlurmError(
            f"{', '.join(missing)} not on the PATH: this is no machine of a SLURM cluster. Without one: distilbench run"
        )


def answer(
    command: list[str], known: str = "", env: dict[str, str] | None = None, cwd: Path | None = None
) -> str | None:
    """What a program printed that ended well; None where it failed with the `known` words, which is an answer too.

    Whatever else it does is a SlurmError: then nothing is known.
    """
    if env is None:  # what is only read has its times in UTC, and nothing is left out
        env = {name: value for name, value in os.environ.items() if not name.startswith(NARROWING)} | {"TZ": "UTC0"}
    done = slurm_job.ended(command, TIMEOUT_S, env=env, cwd=cwd)
    if not done.returncode:
        return done.stdout
    if known and known in done.stderr + done.stdout:
        return None
    why = done.stderr.strip() or done.stdout.strip()[:200] or "it said nothing"
    raise SlurmError(f"{command[0]} ended with code {done.returncode}: {why}")


def table(command: list[str], names: list[str], known: str = "") -> list[dict[str, str]] | None:
    """The rows of a list below its header, without what is no row of it (a site's banner); None as in `answer`."""
    if (printed := answer(command, known)) is None:
        return None
    lines, header = printed.splitlines(), "|".join(names).casefold()
    first = next((number for number, line in enumerate(lines) if line.strip().casefold() == header), None)
    if first is None:
        raise SlurmError(f"an answer that is not understood: {printed.strip()[:200]!r}; wanted: a list below {header}")
    rows = [line.split("|") for line in lines[first + 1 :]]
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names) and A_JOB.fullmatch(row[0])]


def on(cluster: str) -> list[str]:
    """The option that asks for one of several clusters."""
    return [f"--clusters={cluster}"] if cluster else []


def queued(ids: list[str], cluster: str = "") -> list[dict[str, str]]:
    """Of those jobs the ones in the queue, fields as in `QUEUE`; one that the controller has forgotten has ended."""
    command = ["squeue", *on(cluster), "-r", "-j", ",".join(ids), "-o", "|".join(QUEUE.values())]
    rows = table(command, list(QUEUE), FORGOTTEN)
    if rows is None and len(ids) > 1:  # a forgotten one hides the others
        return [row for one in ids for row in queued([one], cluster)]
    return rows or []


def accounting(ids: list[str], fields: str, *options: str, cluster: str = "") -> list[dict[str, str]] | None:
    """Rows of sacct, with times in UTC; None where the cluster keeps no accounts."""
    if not shutil.which("sacct"):
        return None
    command = ["sacct", *on(cluster), "-P", *options, "-j", ",".join(ids), "-o", fields]
    return table(command, fields.split(","), NO_ACCOUNTS)


def described(name: str, number: str, cluster: str = "") -> dict[str, str]:
    """What the controller says of a job just now; {} when it has forgotten it."""
    if (printed := answer(["scontrol", *on(cluster), "show", "job", "--oneliner", name], FORGOTTEN)) is None:
        return {}
    if not (line := slurm_job.line_of(printed, number)):  # an array's last task has the number of the array
        raise SlurmError(f"scontrol show job {name} did not describe job {number}: {printed.strip()[:200]!r}")
    return dict(word.partition("=")[::2] for word in line.split())


def cancel(ids: dict[str, list[str]]) -> list[str]:
    """Cancels jobs, given by cluster; returns what went wrong."""
    failed = []
    for cluster, numbers in ids.items():
        try:
            if numbers:
                answer(["scancel", *on(cluster), *numbers])
        except SlurmError as error:
            failed.append(str(error))
    return failed
