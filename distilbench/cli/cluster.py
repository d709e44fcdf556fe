"""Commands for clusters: runs as batch jobs, their results brought home, and what a service would need."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from importlib.util import find_spec
from typing import Annotated

import typer

from distilbench.cli import options
from distilbench.errors import DistilbenchError, ParameterError, SlurmError


def submit(
    study: options.StudyName = "distilbert",
    profile: options.Profile = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda:0; several (cpu,cuda:0) are a run each.")] = None,
    batch_sizes: options.BatchSizes = None,
    file: options.Files = None,
    param: options.Pairs = None,
    results_root: options.ResultsRoot = "",
    split: Annotated[
        str,
        typer.Option(
            help="rounds: a unit is one repetition of every cell, so that cells are compared within a node; "
            "cells: a unit is one cell, for very many of them."
        ),
    ] = "rounds",
    tasks: Annotated[
        int | None,
        typer.Option(help="How many array tasks share the units, one device each; default: one each."),
    ] = None,
    throttle: Annotated[int, typer.Option(help="How many tasks run at once; 0: as many as there is room for.")] = 0,
    partition: Annotated[str, typer.Option(help="For all jobs.")] = "",
    account: Annotated[str, typer.Option(help="For all jobs.")] = "",
    time: Annotated[str, typer.Option(help="Time limit of a measuring task, such as 2:00:00.")] = "",
    mem: Annotated[str, typer.Option(help="Memory of a measuring task, such as 32G.")] = "",
    cpus_per_task: Annotated[int, typer.Option(help="Cores of a measuring task.")] = 0,
    gres: Annotated[str, typer.Option(help="Such as gpu:1, for a measuring task.")] = "",
    constraint: Annotated[str, typer.Option(help="Kind of node, for the measuring tasks.")] = "",
    exclusive: Annotated[bool, typer.Option("--exclusive", help="A whole node for each measuring task.")] = False,
    flags: Annotated[str, typer.Option(help="More sbatch options for the measuring tasks, in quotes.")] = "",
    step_flags: Annotated[str, typer.Option(help="More sbatch options for the other jobs, in quotes.")] = "",
    book: Annotated[bool, typer.Option(help="Build the report at the end.")] = True,
    resume: Annotated[str, typer.Option(metavar="RUN", help="Submit again what is missing in this run.")] = "",
    retry_oom: Annotated[
        bool,
        typer.Option("--retry-oom", help="With --resume: also repeat what ran out of memory (give more --mem)."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the commands and scripts.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run a study as SLURM jobs: ingest, an array that measures, gather, analyse, book; one run folder for all.

    How these jobs look is in slurm/*.slurm, what your site needs in slurm/site.env (see slurm/site.env.example).
    """
    from distilbench.execution import jobs, notebooks, submission

    if resume and tasks:
        raise ParameterError("--tasks is fixed when a run is first submitted")
    if retry_oom and not resume:
        raise ParameterError("--retry-oom repeats what a run could not measure: name the run with --resume")
    of_all = jobs.flags(partition=partition, account=account)
    of_tasks = jobs.flags(
        time=time, mem=mem, cpus_per_task=cpus_per_task, gres=gres, constraint=constraint, exclusive=exclusive
    )
    asked = jobs.Options(
        [*of_all, *of_tasks, *_words("--flags", flags)],
        [*of_all, *_words("--step-flags", step_flags)],
        throttle,
        book and find_spec("jupyter_book") is not None,  # a batch installation may lack what builds the report
    )
    given = options.given_of(study, profile, param, file, batch_sizes=batch_sizes)
    each = [given | {"device": one} for one in device.split(",")] if device else [given]
    resolved = [notebooks.resolve(study, one, resume, results_root) for one in each]
    if dry_run:
        for one in resolved:
            print(submission.dry(one, asked, split, tasks, bool(resume), retry_oom))
        return
    done = [
        submission.resume(one, asked, retry_oom) if resume else submission.new(one, asked, split, tasks)
        for one in resolved
    ]
    lines = [
        f"{'run':>12}  {one['run_id']}: {len(one['parts'])} tasks\n"
        f"{'jobs':>12}  {', '.join(f'{name} {number}' for name, number in one['jobs'].items())}\n"
        f"{'watch it':>12}  distilbench status {one['run_id']}"
        for one in done
    ]
    options.print_result(as_json, done, *lines)


def _words(option: str, text: str) -> list[str]:
    """The words of an option that holds several, as a shell has them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ParameterError(f"{option}: {str(error).lower()} in {text!r}") from None


def status(
    reference: options.RunName = "latest", results_root: options.ResultsRoot = "", as_json: options.AsJson = False
) -> None:
    """Show the state of a run, of its batch jobs, and of each cell."""
    from distilbench.execution import job_states, submission

    run = options.run_of(reference, results_root)
    state, jobs, cells = run.status, job_states.jobs(run), submission.cells(run)
    parts: list = [f"run {run.run_id}: {state['state']}" + (f" ({state['message']})" if state["message"] else "")]
    if jobs:
        by_state = Counter(job["state"].split(" ")[0] for job in jobs)
        parts.append(f"\n{len(jobs)} jobs: " + ", ".join(f"{count} {name}" for name, count in by_state.items()))
        parts.append(jobs if len(jobs) <= 40 else [job for job in jobs if job["state"] != "COMPLETED"][:40])
    options.print_result(as_json, {"run_id": run.run_id, "run": state, "jobs": jobs, "cells": cells}, *parts, "", cells)
    if unknown := [job["why"] for job in jobs if job["state"] == job_states.UNKNOWN]:
        raise SlurmError(f"the state of {len(unknown)} jobs is not known, they may still wait or run: {unknown[0]}")


def cancel(reference: options.RunName, results_root: options.ResultsRoot = "") -> None:
    """Cancel the batch jobs of a run. What was measured stays; `submit --resume` resumes the run."""
    from distilbench.execution import job_states

    run = options.run_of(reference, results_root)
    left = job_states.cancel(run)
    done = f"{len(left)} jobs of run {run.run_id} cancelled; to resume: {run.resume_command}"
    print(done if left else "no job was left")


def push(
    reference: options.RunName = "latest",
    to: Annotated[str, typer.Option(help="A path, host:path or rsync://host/module; default: $RESULTS_DEST.")] = "",
    tries: Annotated[int, typer.Option(min=1, help="How often, before giving up.")] = 3,
    results_root: options.ResultsRoot = "",
) -> None:
    """Copy a run elsewhere with rsync, and compare every file by checksum afterwards; nothing is ever deleted."""
    from distilbench.execution import push as pushing

    run = options.run_of(reference, results_root)
    count, place = pushing.push(run, to, tries)
    print(f"{count} files of run {run.run_id} are in {place}, equal by checksum")


def optimal(
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    study: Annotated[str, typer.Option(help="Name of the study.")] = "distilbert",
    max_latency_ms: options.MaxLatency = None,
    max_memory_mib: options.MaxMemory = None,
    results_root: options.ResultsRoot = "",
) -> None:
    """Print the batch size with the best throughput, of the newest run that was measured on this kind of machine."""
    size, why = options.optimal(study, device, results_root, max_latency_ms, max_memory_mib)
    print(why, file=sys.stderr)
    print(size)


def recommend(
    reference: options.RunName = "latest",
    max_latency_ms: options.MaxLatency = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Of the sentences of a cycle, 0 to 1.")] = None,
    max_memory_mib: options.MaxMemory = None,
    results_root: options.ResultsRoot = "",
    as_json: options.AsJson = False,
) -> None:
    """Say which variant and batch size of a run to take: for latency, throughput, memory and energy, within limits."""
    run = options.run_of(reference, results_root)
    shown = options.shown_by(run.kind, "recommend")
    limits = options.shown_by(run.kind, "optimal").Limits(max_latency_ms, max_memory_mib, min_accuracy)
    found = shown.recommended(run, limits)
    content = {"run_id": run.run_id, "recommended": {aim.name: cell for aim, cell in found}}
    said = [shown.table(found), f"\n{shown.headline(run, limits)}"]
    said += [f"{'picture':>12}  {file}" for file in shown.save(run, limits, run.folder / "plots")]
    options.print_result(as_json, content, *said)


def capacity(
    reference: options.RunName = "latest",
    rate: Annotated[float, typer.Option(min=0, help="Requests per second that come in, one sentence each.")] = ...,
    max_latency_ms: Annotated[float, typer.Option(min=0, help="From the arrival of a sentence to its label.")] = ...,
    utilisation: Annotated[float, typer.Option(help="Share of the time that a device may be busy.")] = 0.8,
    devices_per_node: Annotated[int, typer.Option(min=1, help="For node-hours.")] = 1,
    results_root: options.ResultsRoot = "",
    as_json: options.AsJson = False,
) -> None:
    """Say how many devices a service needs, and node-hours and kWh per million sentences, with intervals."""
    run = options.run_of(reference, results_root)
    planning = options.shown_by(run.kind, "capacity")
    plans = planning.plans(run, planning.Demand(rate, max_latency_ms, utilisation, devices_per_node))
    content = {"run_id": run.run_id, "plans": [vars(plan) for plan in plans]}
    options.print_result(as_json, content, planning.table(plans), f"\n{planning.headline(run, plans)}")
    if not any(plan.meets for plan in plans):
        raise DistilbenchError("no cell of this run meets the latency: measure smaller batches, or allow more")
