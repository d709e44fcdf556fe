"""How task scores are measured: what is prepared once, what a worker is told. No torch."""

from __future__ import annotations

from typing import Any

from distilbench.harness import processes
from distilbench.harness.handover import is_prepared, load, prepare_once
from distilbench.measurements.task_scores.params import TaskScoresParams
from distilbench.runs.folder import Run

__all__ = ["is_prepared", "load", "prepare", "take"]
HERE = "distilbench.measurements.task_scores.measure"
PROTOCOL = ("group_size", "limit", "batch_size", "checked", "heap")

take = processes.taking(f"{HERE}.worker", lambda params, _: {name: getattr(params, name) for name in PROTOCOL})


def prepare(params: TaskScoresParams, run: Run) -> dict[str, Any]:
    """Tasks, model and factors of the run, once.

    Raises:
        RunError: the run was begun with other questions, another model or other ranks; both hashes are named.
    """
    return prepare_once(run, params, f"{HERE}.prepare")
