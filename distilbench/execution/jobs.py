"""The chain of jobs that measures a run: made, shown as a script, submitted.

What a job does is written in slurm/*.slurm, for people to read and edit.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from distilbench import paths
from distilbench.errors import ParameterError, SlurmError
from distilbench.execution import slurm
from distilbench.machine import environment
from distilbench.runs.folder import Run

MEASURE, OTHERS = "bench_distilbert.slurm", "step.slurm"
SUBMITTED = re.compile(r"(\d+)(?:;([\w.-]+))?")  # what sbatch --parsable prints: the job, and of several clusters which
SET_BY_BASH = ("_", "PWD", "OLDPWD", "SHLVL")


@dataclass(frozen=True)
class Options:
    """What the user asks of the batch system."""

    tasks: list[str] = field(default_factory=list)  # sbatch options of the measuring tasks
    others: list[str] = field(default_factory=list)  # sbatch options of the other jobs
    throttle: int = 0  # how many tasks run at once; 0: as many as there is room for
    book: bool = True  # whether the chain ends with building the report


def flags(**named: str | int | bool) -> list[str]:
    """Options as sbatch has them; what is empty is left to script, site.env or site."""
    given = {name.replace("_", "-"): value for name, value in named.items() if value}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]


@dataclass(frozen=True)
class Job:
    """One sbatch call."""

    name: str  # in the chain
    script: str  # file in slurm/
    flags: list[str]  # options of sbatch
    variables: dict[str, str]  # environment of the job, beside that of sbatch
    after: tuple[str, str] | None = None  # the job before, and how it must have ended: ("ingest", "afterok")

    def command(self, ids: dict[str, str]) -> list[str]:
        """The words of the sbatch call; `ids` are those of the jobs before."""
        waits: list[str] = []
        if self.after:  # without the second option a job whose condition cannot come true would wait for ever
            waits = [f"--dependency={self.after[1]}:{ids[self.after[0]]}", "--kill-on-invalid-dep=yes"]
        script = str(paths.repo_root() / "slurm" / self.script)
        return ["sbatch", "--parsable", "--export=ALL", *waits, *self.flags, script]


def chain(
    run: Run, numbers: list[int], options: Options, ingest: bool, retry_oom: bool = False, sections: bool = False
) -> list[Job]:
    """The jobs of a submission: ingest, measure (an array over parts), gather, sections, analyse, book, account.

    The run's folder is fixed before any job starts, so that a requeued one resumes it. Without numbers of parts what
    was measured is gathered; with `ingest` text and model are prepared first; with `sections` what else the study
    measures is measured by one job on a node like those of the parts.
    """
    tag, variables = run.run_id[-8:], {"RUN": str(run.folder), "DISTILBENCH_BIN": str(Path(sys.executable).parent)}

    def other(name: str, after: tuple[str, str] | None = None) -> Job:
        return Job(name, OTHERS, [f"--job-name={name}-{tag}", *options.others], variables | {"STEP": name}, after)

    chained = [other("ingest")] if ingest else []
    if numbers:
        array = f"--array={_ranges(numbers)}" + (f"%{options.throttle}" if options.throttle else "")
        words = [f"--job-name=measure-{tag}", array, *options.tasks]
        retry = {"RETRY_OOM": "1"} if retry_oom else {}
        chained.append(Job("measure", MEASURE, words, variables | retry, ("ingest", "afterok") if ingest else None))
    chained.append(other("gather", ("measure", "afterany") if numbers else None))
    if sections:
        words = [f"--job-name=sections-{tag}", *options.tasks]
        chained.append(Job("sections", OTHERS, words, variables | {"STEP": "sections"}, ("gather", "afterok")))
    chained.append(other("analyse", (chained[-1].name, "afterok")))
    chained += [other("book", ("analyse", "afterok"))] if options.book else []
    return [*chained, other("account", (chained[-1].name, "afterany"))]


def _ranges(numbers: list[int]) -> str:
    """1,2,3,7 as sbatch has it: 1-3,7."""
    runs = groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])  # consecutive: equal differences
    ranges = ([number for _, number in run] for _, run in runs)
    return ",".join("-".join(dict.fromkeys([str(run[0]), str(run[-1])])) for run in ranges)


def script_of(chained: list[Job]) -> str:
    """The chain as a shell script that does the same by hand, and what it starts."""
    root, lines, ids = paths.repo_root(), [], {}
    for job in chained:
        ids[job.name] = f"${job.name}"
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in job.variables.items())
        words = [word if word.startswith("--dependency=") else shlex.quote(word) for word in job.command(ids)]
        lines.append(f"{job.name}=$({variables} {' '.join(words)} | id)")
    for name in dict.fromkeys([*(job.script for job in chained), "setup.sh"]):
        text = (root / "slurm" / name).read_text(encoding="utf-8")
        lines.append(f"\n# ---------------- slurm/{name}\n{text}")
    number = r"id() { sed -nE 's/^([0-9]+)(;.*)?$/\1/p' | grep .; }  # of a job, without what else a site prints"
    return "\n".join(["set -eo pipefail", number, f"cd {shlex.quote(str(root))}", *lines])


def submit(run: Run, chained: list[Job], numbers: list[int]) -> dict[str, str]:
    """Hands the chain to SLURM and notes it in the run; returns the job ids by name.

    Where a job is refused or gets no number, what was submitted before it is cancelled.
    """
    slurm.require("sbatch", "scancel")
    _require_room(numbers)
    made: list[dict[str, str]] = []
    # In a task of another array its number would be taken for that of the new jobs.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_ARRAY_")}
    env = inherited | site_variables()
    (paths.repo_root() / "slurm_logs").mkdir(exist_ok=True)
    for job in chained:
        try:
            made.append({"name": job.name} | _submitted(job, made, env))
        except SlurmError as error:
            raise SlurmError(f"sbatch refused job {job.name}, {_withdraw(job, made)}: {error}") from None
    note = {"submitted": environment.now(), "parts": numbers, "jobs": made}
    paths.append_line(run.folder / "submissions.jsonl", paths.canonical_json(note).decode())
    run.set_status("pending", f"submitted to SLURM: distilbench status {run.run_id}")
    return {one["name"]: one["id"] for one in made}


def _submitted(job: Job, before: list[dict[str, str]], env: dict[str, str]) -> dict[str, str]:
    """Hands one job to SLURM: its `id`, and the `cluster` that sbatch names; the whole chain must be on that."""
    chosen = before[0].get("cluster", "") if before else ""
    sbatch, *words = job.command({one["name"]: one["id"] for one in before})
    printed = slurm.answer([sbatch, *slurm.on(chosen), *words], env=env | job.variables, cwd=paths.repo_root())
    matches = [match for line in printed.splitlines() if (match := SUBMITTED.fullmatch(line.strip()))]
    if len(matches) != 1:
        how_many = "more than one" if matches else "no"
        raise SlurmError(f"of what it printed {how_many} line is a job id: {printed.strip()!r}")
    number, cluster = matches[0][1], matches[0][2] or ""
    if before and cluster != chosen:
        slurm.cancel({cluster: [number]})
        raise SlurmError(f"it went to cluster {cluster or '(none)'!r}, the jobs before it to {chosen or '(none)'!r}")
    return {"id": number} | ({"cluster": cluster} if cluster else {})


def _withdraw(job: Job, made: list[dict[str, str]]) -> str:
    """Cancels the jobs of a chain that came to nothing; says what is left.

    Also the one that failed, by its name: a controller that answers too late has it in the queue all the same.
    """
    cluster, ids = made[0].get("cluster", "") if made else "", [one["id"] for one in made]
    name = next(word.partition("=")[2] for word in reversed(job.flags) if word.startswith("--job-name="))
    failed = [*slurm.cancel({cluster: ids}), *slurm.cancel({cluster: [f"--name={name}"]})]
    if not failed:
        return "nothing is left in the queue"
    return f"and the queue may still hold {' '.join([*ids, name])} (cancel them by hand; {'; '.join(failed)})"


def _require_room(numbers: list[int]) -> None:
    """An array's indexes must be below MaxArraySize."""
    config = ""
    with suppress(SlurmError):  # where nobody says it, sbatch refuses what is too large
        config = slurm.answer(["scontrol", "show", "config"])
    known = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    if known and max(numbers, default=0) >= int(known[1]):
        raise ParameterError(
            f"{max(numbers) + 1} tasks are more than this cluster's arrays hold (MaxArraySize is {known[1]}): deal the "
            f"work over fewer with --tasks {known[1]} or less"
        )


def site_variables() -> dict[str, str]:
    """What slurm/site.env sets (a shell file); nothing where there is none."""
    file = paths.repo_root() / "slurm" / "site.env"
    if not file.is_file():
        return {}
    before = dict(os.environ)
    try:  # what the file prints is no variable
        printed = slurm.answer(["bash", "-c", f"set -ae; . {shlex.quote(str(file))} >&2; env -0"], env=before)
    except SlurmError as error:
        raise ParameterError(f"{file} is no shell file of NAME=value lines: {error}") from None
    after = dict(pair.split("=", 1) for pair in printed.split("\0") if "=" in pair)
    return {name: value for name, value in after.items() if before.get(name) != value and name not in SET_BY_BASH}
