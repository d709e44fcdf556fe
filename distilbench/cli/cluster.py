"""Commands for clusters: runs as batch jobs, their results brought home, and what a service would need."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distilbench.cli.options import (
    AsJson,
    Files,
    LogFormat,
    Pairs,
    Profile,
    ResultsRoot,
    RunName,
    StudyName,
    given_of,
    print_json,
    print_table,
)
from distilbench.errors import DistilbenchError, ParameterError, RunError, SlurmError

if TYPE_CHECKING:
    from types import ModuleType

    from distilbench.runs.folder import Run
    from distilbench.runs.measurement import Measurement

app = typer.Typer()
job_app = typer.Typer(
    help="What the batch jobs of `submit` do, step by step; each may be done again at any time.", no_args_is_help=True
)
BATCH = "Batch system"


@app.command(rich_help_panel=BATCH)
def submit(
    study: StudyName = "distilbert",
    profile: Profile = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda:0; several (cpu,cuda:0) are a run each.")] = None,
    batch_sizes: Annotated[str | None, typer.Option(help="Comma-separated, such as 16,32.")] = None,
    file: Files = None,
    param: Pairs = None,
    results_root: ResultsRoot = "",
    split: Annotated[
        str,
        typer.Option(
            help="rounds: a unit is one repetition of every cell, so that cells are compared within a node; "
            "cells: a unit is one cell, for very many of them."
        ),
    ] = "rounds",
    tasks: Annotated[
        int | None, typer.Option(help="Deal the units over so many array tasks, one device each; default: one each.")
    ] = None,
    throttle: Annotated[int, typer.Option(help="Tasks that run at once; 0: as many as there is room for.")] = 0,
    partition: Annotated[str, typer.Option(help="Of all jobs.")] = "",
    account: Annotated[str, typer.Option(help="Of all jobs.")] = "",
    time: Annotated[str, typer.Option(help="Time limit of a measuring task, such as 2:00:00.")] = "",
    mem: Annotated[str, typer.Option(help="Memory of a measuring task, such as 32G.")] = "",
    cpus_per_task: Annotated[int, typer.Option(help="Cores of a measuring task.")] = 0,
    gres: Annotated[str, typer.Option(help="Such as gpu:1, for a measuring task.")] = "",
    constraint: Annotated[str, typer.Option(help="Kind of node, for the measuring tasks.")] = "",
    exclusive: Annotated[bool, typer.Option("--exclusive", help="A whole node for each measuring task.")] = False,
    flags: Annotated[str, typer.Option(help="More sbatch options of the measuring tasks, as one word.")] = "",
    step_flags: Annotated[str, typer.Option(help="More sbatch options of the other jobs, as one word.")] = "",
    book: Annotated[bool, typer.Option(help="End with building the report.")] = True,
    resume: Annotated[str, typer.Option(metavar="RUN", help="Submit again what is missing in this run.")] = "",
    retry_oom: Annotated[
        bool, typer.Option("--retry-oom", help="With --resume: also what ended for want of memory (give more --mem).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print commands and scripts; nothing is made.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a study as SLURM jobs: ingest, an array that measures, gather, analyse, book; one run folder for all.

    How these jobs look is in slurm/*.slurm, what your site needs in slurm/site.env (see slurm/site.env.example).
    """
    from distilbench.execution import notebooks, slurm, submission

    options = slurm.Options(
        partition, account, time, mem, cpus_per_task, gres, constraint, exclusive, throttle, flags, step_flags, book
    )
    if resume:
        given = given_of(study, profile, param, file, device=device, batch_sizes=batch_sizes)
        resolved = [notebooks.resolve(study, given, resume, results_root)]
        if tasks:
            raise ParameterError("--tasks is fixed when a run is first submitted")
    elif retry_oom:
        raise ParameterError("--retry-oom is of a run that was measured: name it with --resume")
    else:
        given = given_of(study, profile, param, file, batch_sizes=batch_sizes)
        devices = (device or "").split(",") if device else [given.get("device")]
        resolved = [notebooks.resolve(study, given | {"device": one}, "", results_root) for one in devices]
    done = []
    for one in resolved:
        if dry_run:
            print(submission.dry(one, options, split, tasks, bool(resume), retry_oom))
            continue
        made = submission.resume(one, options, retry_oom) if resume else submission.new(one, options, split, tasks)
        done.append(made)
    if as_json and not dry_run:
        told = [{"run_id": m.run.run_id, "folder": str(m.run.folder), "parts": m.parts, "jobs": m.ids} for m in done]
        print_json(told)
        return
    for made in done:
        jobs = ", ".join(f"{name} {number}" for name, number in made.ids.items())
        print(f"{'run':>12}  {made.run.run_id}: {len(made.parts)} tasks\n{'jobs':>12}  {jobs}")
        print(f"{'watch it':>12}  distilbench status {made.run.run_id}")


@app.command(rich_help_panel=BATCH)
def status(reference: RunName = "latest", results_root: ResultsRoot = "", as_json: AsJson = False) -> None:
    """Show the state of a run, of its batch jobs, and of each cell."""
    from distilbench.execution import slurm, submission
    from distilbench.runs import find

    run = find.find(reference, results_root)
    jobs, cells = slurm.jobs(run), submission.cells(run)
    if as_json:
        print_json({"run_id": run.run_id, "run": run.status, "jobs": jobs, "cells": cells})
    else:
        _show_status(run, jobs, cells)
    if unknown := [job for job in jobs if job["state"] == slurm.UNKNOWN]:
        raise SlurmError(
            f"what became of {len(unknown)} jobs is not known, they may still wait or run: {unknown[0]['why']}"
        )


def _show_status(run: Run, jobs: list[dict[str, str]], cells: list[dict[str, Any]]) -> None:
    import pandas as pd

    state = run.status
    print(f"run {run.run_id}: {state['state']}" + (f" ({state['message']})" if state["message"] else ""))
    if jobs:
        by_state = Counter(job["state"].split(" ")[0] for job in jobs)
        print(f"\n{len(jobs)} jobs: " + ", ".join(f"{count} {name}" for name, count in by_state.items()))
        shown = jobs if len(jobs) <= 40 else [job for job in jobs if job["state"] != "COMPLETED"][:40]
        print_table(pd.DataFrame(shown, columns=["name", "job", "state", "node", "elapsed", "why"]))
    print()
    print_table(pd.DataFrame(cells, columns=["cell", "state", "done"]))


@app.command(rich_help_panel=BATCH)
def cancel(reference: RunName, results_root: ResultsRoot = "") -> None:
    """Cancel the batch jobs of a run; what was measured stays, and `submit --resume` goes on with it."""
    from distilbench.execution import slurm
    from distilbench.runs import find

    run = find.find(reference, results_root)
    left = slurm.cancel(run)
    print(
        f"{len(left)} jobs of run {run.run_id} cancelled; go on with: {run.resume_command}"
        if left
        else "no job was left"
    )


@app.command(rich_help_panel=BATCH)
def push(
    reference: RunName = "latest",
    to: Annotated[str, typer.Option(help="A path, host:path or rsync://host/module; default: $RESULTS_DEST.")] = "",
    tries: Annotated[int, typer.Option(min=1, help="How often, before giving up.")] = 3,
    results_root: ResultsRoot = "",
) -> None:
    """Copy a run elsewhere with rsync, and compare every file by checksum afterwards; nothing is ever deleted."""
    from distilbench.execution import push as execution_push
    from distilbench.runs import find

    run = find.find(reference, results_root)
    count, place = execution_push.push(run, to, tries)
    print(f"{count} files of run {run.run_id} are in {place}, equal by checksum")


def _planning(kind: Measurement) -> ModuleType:
    """What a kind says of the capacity that a service needs.

    Raises:
        ParameterError: it says nothing of it.
    """
    if not (planning := getattr(kind.showing, "capacity", None)):
        raise ParameterError(f"runs of kind {kind.name!r} say nothing of batches and capacity")
    return planning


@app.command(rich_help_panel=BATCH)
def optimal(
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    study: Annotated[str, typer.Option(help="Name of the study.")] = "distilbert",
    results_root: ResultsRoot = "",
) -> None:
    """Print the batch size with the best throughput, of the newest run that was measured on this kind of machine."""
    from distilbench import studies

    planning = _planning(studies.kind_of(study))
    size, said = planning.optimal(study, device, results_root)
    print(said, file=sys.stderr)
    print(size)


@app.command(rich_help_panel=BATCH)
def capacity(
    reference: RunName = "latest",
    rate: Annotated[float, typer.Option(min=0, help="Requests per second that come in, one sentence each.")] = ...,
    max_latency_ms: Annotated[float, typer.Option(min=0, help="From the arrival of a sentence to its label.")] = ...,
    utilisation: Annotated[float, typer.Option(help="Share of the time that a device may be busy.")] = 0.8,
    devices_per_node: Annotated[int, typer.Option(min=1, help="For node-hours.")] = 1,
    results_root: ResultsRoot = "",
    as_json: AsJson = False,
) -> None:
    """Say how many devices a service needs, and node-hours and kWh per million sentences, with intervals."""
    from distilbench.runs import find

    run = find.find(reference, results_root)
    planning = _planning(run.kind)
    plans = planning.plans(run, planning.Demand(rate, max_latency_ms, utilisation, devices_per_node))
    if as_json:
        print_json({"run_id": run.run_id, "plans": [vars(plan) for plan in plans]})
    else:
        print_table(planning.table(plans))
        print(f"\n{planning.headline(run, plans)}")
    if not any(plan.meets for plan in plans):
        raise DistilbenchError("no cell of this run meets the latency: measure smaller batches, or allow more")


# ------------------------------------------------------------------ what the jobs do


@job_app.command()
def ingest(reference: RunName, results_root: ResultsRoot = "", log_format: LogFormat = "text") -> None:
    """Prepare text and model, and record what they are."""
    from distilbench import logs, studies
    from distilbench.execution import notebooks
    from distilbench.runs import find

    logs.setup(log_format)
    run = find.find(reference, results_root)
    with notebooks.failures_of(run, "ingest"):
        for name in studies.chain(run.config["study"])[:-2]:
            notebooks.step(run, name)
        run.kind.measuring.prepare(notebooks.resolve_again(run).params, run)


@job_app.command()
def measure(
    reference: RunName,
    part: Annotated[int, typer.Option(help="Number of the part; a task that finds it done does nothing.")],
    retry_oom: Annotated[bool, typer.Option("--retry-oom", help="Also what ended for want of memory.")] = False,
    results_root: ResultsRoot = "",
) -> None:
    """Measure one part of a run in parts."""
    from distilbench.execution import notebooks
    from distilbench.harness import steps
    from distilbench.runs import find

    run = find.find(reference, results_root)
    steps.measure_shard(run, notebooks.resolve_again(run), part, retry_oom)


@job_app.command()
def gather(reference: RunName, results_root: ResultsRoot = "", log_format: LogFormat = "text") -> None:
    """Bring what the parts measured into the run; exit code 1 where something is missing."""
    from distilbench import logs, studies
    from distilbench.execution import notebooks, slurm
    from distilbench.harness import shards
    from distilbench.runs import find

    logs.setup(log_format)
    run = find.find(reference, results_root)
    for line in slurm.settle(run):
        print(line, flush=True)
    if not shards.attempts(run):
        with notebooks.failures_of(run, "gather"):
            raise RunError(f"no part of it began; before: {run.status['message']} (see slurm_logs/)")
    notebooks.step(run, studies.measuring_notebook(run.config["study"]))


@job_app.command()
def analyse(reference: RunName, results_root: ResultsRoot = "", log_format: LogFormat = "text") -> None:
    """Plots and findings of the run."""
    from distilbench import logs, studies
    from distilbench.execution import notebooks
    from distilbench.runs import find

    logs.setup(log_format)
    run = find.find(reference, results_root)
    notebooks.step(run, studies.analysis(run.config["study"]))


@job_app.command()
def book(reference: RunName, results_root: ResultsRoot = "") -> None:
    """Build the report, with the run as a page."""
    from distilbench.publication import build as building
    from distilbench.runs import find

    with building.build_lock(wait=True):
        print(building.build(find.find(reference, results_root)))


@job_app.command()
def account(reference: RunName, results_root: ResultsRoot = "") -> None:
    """Collect what SLURM counted for the run's jobs into slurm_jobs.json, once they ended; copy it to $RESULTS_DEST."""
    import os

    from distilbench.execution import push as execution_push
    from distilbench.execution import slurm
    from distilbench.runs import find

    run = find.find(reference, results_root)
    problem = None
    try:
        print(slurm.account(run), flush=True)
    except SlurmError as error:  # what was measured is brought home all the same
        problem = error
    if os.environ.get("RESULTS_DEST"):
        count, place = execution_push.push(run)
        print(f"{count} files are in {place}, equal by checksum")
    if problem:
        raise problem
