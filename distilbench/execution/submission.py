"""A run as batch jobs: made and submitted, gone on with, and what state it is in."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import Any

from distilbench import paths, studies
from distilbench.errors import RunError
from distilbench.execution import notebooks, slurm
from distilbench.harness import shards
from distilbench.runs import find
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved
from distilbench.runs.states import FINAL

Key = tuple[str, str, int]  # cell, pass, repetition


@dataclass(frozen=True)
class Submission:
    """What was submitted: the run, its parts by number, job ids by name."""

    run: Run
    parts: list[int]
    ids: dict[str, str]


def new(
    resolved: Resolved, options: slurm.Options, split: shards.Split = "rounds", tasks: int | None = None
) -> Submission:
    """Makes a run folder and submits the chain that fills it.

    Raises:
        DistilbenchError: SLURM is not here or refuses; the run is left as cancelled, and can be submitted again.
    """
    kind = studies.kind_of(resolved.params.study)
    resolved = kind.for_jobs(resolved)
    shards.shard_plan(kind, resolved, split, tasks)  # refuses before a folder is made
    slurm.require("sbatch")
    run = find.create(resolved, kind)
    numbers = list(range(shards.divide(run, resolved, split, tasks)))
    return _submit(run, numbers, options, ingest=True)


def resume(resolved: Resolved, options: slurm.Options, retry_oom: bool = False) -> Submission:
    """Submits what is missing in a run that was submitted before.

    Raises:
        RunError: its jobs are still queued, or nothing is missing.
    """
    run = find.named(resolved.params)
    if not run.is_split:
        raise RunError(f"run {run.run_id} was not submitted: go on with it by `{run.resume_command}`")
    with run.held():  # two at once: the second is refused
        run.require_same_design(resolved)
        if left := slurm.living(run):
            raise RunError(
                f"{len(left)} jobs of run {run.run_id} still wait or run: `distilbench status {run.run_id}` shows "
                f"them, `distilbench cancel {run.run_id}` ends them"
            )
        slurm.settle(run)
        numbers = shards.unfinished(run, resolved, retry_oom)
        if not numbers and run.status["state"] == "ok":
            oom = [name for name, state in run.status["cells"].items() if state == "oom"]
            hint = f" ({len(oom)} cells ended for want of memory: --retry-oom, with more --mem)" if oom else ""
            raise RunError(f"nothing is missing in run {run.run_id}{hint}")
        ingest = bool(numbers) and not run.kind.measuring.is_prepared(run)
        return _submit(run, numbers, options, ingest, retry_oom)


def _submit(run: Run, numbers: list[int], options: slurm.Options, ingest: bool, retry_oom: bool = False) -> Submission:
    find.warn_of_code_without_commit(run.config["parameters"]["profile"])
    jobs = slurm.chain(run, numbers, _with_book(options), ingest, retry_oom)
    try:
        return Submission(run, numbers, slurm.submit(run, jobs, numbers))
    except Exception as error:
        run.set_status("cancelled", f"not submitted: {error}; again with: {run.resume_command}")
        raise


def _with_book(options: slurm.Options) -> slurm.Options:
    """A batch installation may lack what builds the report."""
    return replace(options, book=options.book and importlib.util.find_spec("jupyter_book") is not None)


def dry(
    resolved: Resolved, options: slurm.Options, split: shards.Split, tasks: int | None, resume: bool, retry_oom: bool
) -> str:
    """What a submission would hand to SLURM, as text; nothing is made."""
    root = paths.results_root(resolved.params.results_root) / resolved.params.study
    if resume:
        run = find.named(resolved.params)
        numbers = shards.unfinished(run, resolved, retry_oom)
        ingest = bool(numbers) and not run.kind.measuring.is_prepared(run)
    else:
        kind = studies.kind_of(resolved.params.study)
        resolved = kind.for_jobs(resolved)
        run = Run(root / (resolved.params.run_id or find.new_run_id(resolved.params.device)), kind)
        numbers, ingest = list(range(len(shards.shard_plan(kind, resolved, split, tasks)))), True
    return slurm.script_of(slurm.chain(run, numbers, _with_book(options), ingest, retry_oom))


def cells(run: Run) -> list[dict[str, Any]]:
    """Per cell of a run its state, and how many of its repetitions are done, in the run or in its parts."""
    resolved, states = notebooks.resolve_again(run), run.status["cells"]
    records = run.repetitions()
    if run.is_split:
        records += [record for n in range(len(shards.of(run, resolved))) for record in shards.repetitions(run, n)]
    done = {record.key for record in records if record.status in FINAL}
    steps = _steps(run, resolved, done)
    oom_cells = {record.cell for record in records if record.status == "oom"}
    rows = []
    for name in (cell["cell"] for cell in run.config["cells"]):
        wanted = {step for step in steps if step[0] == name}
        have, count = len(wanted & done), len(wanted)
        state = states.get(name, "pending")
        if state == "pending" and have:
            state = "measured" if have == count else "running"
        rows.append({"cell": name, "state": "oom" if name in oom_cells else state, "done": f"{have} of {count}"})
    return rows


def _steps(run: Run, resolved: Resolved, done: set[Key]) -> set[Key]:
    """All repetitions that a run needs; those among them that show only when the others are done."""
    steps = {(cell.cell, where, repetition) for cell, where, repetition in run.kind.plan(resolved)}
    if steps <= done:
        later = run.kind.measuring.later(run, resolved.params)
        steps |= {(cell.cell, where, repetition) for cell, where, repetition in later}
    return steps
