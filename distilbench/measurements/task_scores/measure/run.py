"""How task scores are measured: what is prepared once, what a worker is told. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distilbench.harness import processes
from distilbench.harness.handover import is_prepared, load
from distilbench.measurements.llm_speed.measure.spec import LlmSpec
from distilbench.measurements.task_scores.params import TaskScoresParams
from distilbench.measurements.task_scores.records import TaskCell, TaskRecord
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved

__all__ = ["is_prepared", "load"]
WORKER = (*processes.WORKER, "distilbench.measurements.task_scores.measure.worker")
PROTOCOL = ("group_size", "limit", "batch_size", "checked", "heap")


def prepare(params: TaskScoresParams, run: Run) -> dict[str, Any]:
    """Tasks, model and factors of the run, once; of a run in shards, what its ingest prepared.

    Raises:
        RunError: the run was begun with other questions, another model or other ranks; both hashes are named.
    """
    if run.is_split and is_prepared(run):
        return load(run)
    from distilbench.measurements.task_scores.measure import prepare as preparing  # needs torch

    return preparing.prepare(params, run)


def take(run: Run, resolved: Resolved, prepared: dict[str, Any]) -> Callable[[TaskCell, str, int, int], TaskRecord]:
    """What measures a step into a run, or into an attempt at a shard of it."""
    params = resolved.params

    def step(cell: TaskCell, pass_name: str, repetition: int, attempt: int) -> TaskRecord:
        names = {"study": params.study, "pass": pass_name, "repetition": repetition, "attempt": attempt}
        spec = LlmSpec(
            run=str(run.folder),
            prepared=prepared["folder"],
            identity=cell.model_dump() | names,
            model=params.model_arguments(),
            protocol={name: getattr(params, name) for name in PROTOCOL} | processes.cores(params.num_threads),
        )
        return processes.run_worker(run, WORKER, spec, params.repetition_timeout_s)

    return step
