"""What all cells of a run share: the tasks, what the model is, and the factors of its compressed form."""

from __future__ import annotations

from typing import Any

from distilbench import paths
from distilbench.harness import handover
from distilbench.lowrank import prepared
from distilbench.measurements.task_scores.measure import tasks
from distilbench.measurements.task_scores.params import TaskScoresParams
from distilbench.runs.folder import Run
from distilbench.sources.decoders import load_decoder


def prepare(params: TaskScoresParams, run: Run) -> dict[str, Any]:
    """Tasks, model and factors, recorded in data.json, model.json and compression.json.

    Returns:
        `folder`: of the run, where workers find the factors.

    Raises:
        ParameterError, HubError: a task is none, or cannot be loaded; before a model is.
        ModelError: the harness is not installed, or the compressed model is not one.
        RunError: the run was begun with other questions, another model or other ranks; both hashes are named.
    """
    asked = {name: tasks.manifest(task, name, params.limit) for name, task in tasks.load(list(params.tasks)).items()}
    data = {"schema_version": 1, "name": ", ".join(asked), "tasks": asked, "harness": tasks.version()}
    sha256 = paths.sha256_bytes(paths.canonical_json({name: one["sha256"] for name, one in asked.items()}))
    documents = sum(one["documents"] for one in asked.values())
    run.record_once("data.json", data | {"sha256": sha256, "documents": documents}, ("sha256",))
    loaded = load_decoder(**params.model_arguments())
    prepared.record_model(run, loaded)
    prepared.leave(params, run, loaded, prepared.tokens_of(params, loaded, calibrating=False)[0][:16])
    told = {"folder": str(run.folder)}
    handover.save(run, told)
    return told
