"""The steps of the batch jobs of `submit`; each may be repeated at any time."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from distilbench.cli.options import LogFormat, ResultsRoot, RunName, run_of
from distilbench.errors import RunError, SlurmError, first_line


def ingest(reference: RunName, results_root: ResultsRoot = "", log_format: LogFormat = "text") -> None:
    """Prepare text and model, and record what they are."""
    from distilbench import studies
    from distilbench.execution import notebooks

    run = run_of(reference, results_root)
    try:
        notebooks.execute(run, studies.preparing_notebooks(run.config["study"]))
        run.kind.measuring.prepare(notebooks.resolve_again(run).params, run)
    except Exception as error:  # no job after this one will say so
        run.set_status("failed", f"ingest: {first_line(error)}")
        raise


def measure(
    reference: RunName,
    part: Annotated[int, typer.Option(help="Number of the part; a task that finds it done does nothing.")],
    retry_oom: Annotated[bool, typer.Option("--retry-oom", help="Also what ended for want of memory.")] = False,
    results_root: ResultsRoot = "",
) -> None:
    """Measure one part of a run in parts."""
    from distilbench.execution import notebooks
    from distilbench.harness import steps

    run = run_of(reference, results_root)
    steps.measure_shard(run, notebooks.resolve_again(run), part, retry_oom)


def gather(reference: RunName, results_root: ResultsRoot = "", log_format: LogFormat = "text") -> None:
    """Bring what the parts measured into the run; exit code 1 where something is missing."""
    from distilbench import studies
    from distilbench.execution import job_states, notebooks
    from distilbench.harness import shards

    run = run_of(reference, results_root)
    for line in job_states.settle(run):
        print(line, flush=True)
    if not shards.attempts(run):
        nothing = f"no part of it began; before: {run.status['message']} (see slurm_logs/)"
        run.set_status("failed", f"gather: {nothing}")
        raise RunError(nothing)
    notebooks.execute(run, [studies.measuring_notebook(run.config["study"])])


def sections(reference: RunName, results_root: ResultsRoot = "", log_format: LogFormat = "text") -> None:
    """Measure what the study measures besides its own kind."""
    from distilbench import studies
    from distilbench.execution import notebooks

    run = run_of(reference, results_root)
    notebooks.execute(run, studies.section_notebooks(run.config["study"]))


def analyse(reference: RunName, results_root: ResultsRoot = "", log_format: LogFormat = "text") -> None:
    """Plots and findings of the run."""
    from distilbench import studies
    from distilbench.execution import notebooks

    run = run_of(reference, results_root)
    notebooks.execute(run, [studies.analysis(run.config["study"])])


def book(reference: RunName, results_root: ResultsRoot = "") -> None:
    """Build the report, with the run as a page."""
    from distilbench.publication import build as building

    with building.build_lock(wait=True):
        print(building.build(run_of(reference, results_root)))


def account(reference: RunName, results_root: ResultsRoot = "") -> None:
    """Collect what SLURM counted for the run's jobs into slurm_jobs.json, once they ended; copy it to $RESULTS_DEST."""
    from distilbench.execution import job_states
    from distilbench.execution import push as pushing

    run = run_of(reference, results_root)
    try:
        print(job_states.account(run), flush=True)
        problem = None
    except SlurmError as error:  # what was measured is brought home all the same
        problem = error
    if os.environ.get("RESULTS_DEST"):
        count, place = pushing.push(run)
        print(f"{count} files are in {place}, equal by checksum")
    if problem:
        raise problem
