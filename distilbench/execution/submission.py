"""A run as batch jobs: made and submitted, resumed, and what state it is in."""

from __future__ import annotations

from typing import Any

from distilbench import studies
from distilbench.errors import RunError
from distilbench.execution import job_states, jobs, notebooks, slurm
from distilbench.harness import shards
from distilbench.runs import find
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved
from distilbench.runs.states import FINAL


def new(
    resolved: Resolved, options: jobs.Options, split: shards.Split = "rounds", tasks: int | None = None
) -> dict[str, Any]:
    """Makes a run folder and submits the chain that fills it; one that SLURM refuses can be submitted again."""
    kind = studies.kind_of(resolved.params.study)
    resolved = kind.for_jobs(resolved)
    shards.shard_plan(kind, resolved, split, tasks)  # refuses before a folder is made
    slurm.require("sbatch")
    run = find.create(resolved, kind, sections=studies.sections(resolved))
    numbers = list(range(shards.divide(run, resolved, split, tasks)))
    return _submit(run, numbers, jobs.chain(run, numbers, options, ingest=True, sections=bool(run.sections)))


def resume(resolved: Resolved, options: jobs.Options, retry_oom: bool = False) -> dict[str, Any]:
    """Submits what is missing in a run that was submitted before, once none of its jobs is left."""
    run = find.named(resolved.params)
    if not run.is_split:
        raise RunError(f"run {run.run_id} was not submitted: resume it with `{run.resume_command}`")
    with run.held():  # two at once: the second is refused
        run.require_same_design(resolved)
        if left := job_states.living(run):
            raise RunError(
                f"{len(left)} jobs of run {run.run_id} still wait or run: `distilbench status {run.run_id}` shows "
                f"them, `distilbench cancel {run.run_id}` ends them"
            )
        job_states.settle(run)
        numbers = shards.unfinished(run, resolved, retry_oom)
        if not numbers and run.status["state"] == "ok":
            oom = [name for name, state in run.status["cells"].items() if state == "oom"]
            hint = f" ({len(oom)} cells ended for want of memory: --retry-oom, with more --mem)" if oom else ""
            raise RunError(f"nothing is missing in run {run.run_id}{hint}")
        return _submit(run, numbers, _rest(run, numbers, options, retry_oom))


def dry(
    resolved: Resolved, options: jobs.Options, split: shards.Split, tasks: int | None, resume: bool, retry_oom: bool
) -> str:
    """What a submission would hand to SLURM, as text; nothing is made."""
    if resume:
        run = find.named(resolved.params)
        return jobs.script_of(_rest(run, shards.unfinished(run, resolved, retry_oom), options, retry_oom))
    params, kind = resolved.params, studies.kind_of(resolved.params.study)
    name = params.run_id or find.new_run_id(params.device)
    run = Run(params.runs_folder / name, kind)
    parts = len(shards.shard_plan(kind, kind.for_jobs(resolved), split, tasks))
    more = bool(studies.sections(resolved))
    return jobs.script_of(jobs.chain(run, list(range(parts)), options, ingest=True, sections=more))


def _rest(run: Run, numbers: list[int], options: jobs.Options, retry_oom: bool) -> list[jobs.Job]:
    """The chain that measures these parts of a run that was submitted before."""
    ingest = bool(numbers) and not run.kind.measuring.is_prepared(run)
    return jobs.chain(run, numbers, options, ingest, retry_oom, sections=bool(run.sections))


def _submit(run: Run, numbers: list[int], chained: list[jobs.Job]) -> dict[str, Any]:
    """Submits a chain; returns the run's id and folder, its parts by number and job ids by name."""
    find.warn_of_code_without_commit(run.config["parameters"]["profile"])
    try:
        ids = jobs.submit(run, chained, numbers)
    except Exception as error:
        run.set_status("cancelled", f"not submitted: {error}; again with: {run.resume_command}")
        raise
    return {"run_id": run.run_id, "folder": str(run.folder), "parts": numbers, "jobs": ids}


def cells(run: Run) -> list[dict[str, Any]]:
    """Per cell of a run its state, and how many of its repetitions are done, in the run or in its parts."""
    resolved, states = notebooks.resolve_again(run), run.status["cells"]
    records = run.repetitions()
    if run.is_split:
        records += [record for part in range(len(shards.of(run, resolved))) for record in shards.repetitions(run, part)]
    done = {record.key for record in records if record.status in FINAL}
    steps = {(cell.cell, pass_name, repetition) for cell, pass_name, repetition in run.kind.plan(resolved)}
    if steps <= done:  # there are some that show only when the others are done
        later = run.kind.measuring.later(run, resolved.params)
        steps |= {(cell.cell, pass_name, repetition) for cell, pass_name, repetition in later}
    oom_cells = {record.cell for record in records if record.status == "oom"}
    rows = []
    for name in (cell["cell"] for cell in run.config["cells"]):
        wanted = {step for step in steps if step[0] == name}
        have, count = len(wanted & done), len(wanted)
        state = "oom" if name in oom_cells else states.get(name, "pending")
        if state == "pending" and have:
            state = "measured" if have == count else "running"
        rows.append({"cell": name, "state": state, "done": f"{have} of {count}"})
    return rows
