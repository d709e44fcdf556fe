"""What all cells of a run share: the text as tokens, what the model is, and the factors of its compressed form."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from distilbench import paths
from distilbench.errors import DataError
from distilbench.harness import handover
from distilbench.lowrank import prepared
from distilbench.measurements.llm_speed.params import PaluParams
from distilbench.measurements.llm_speed.records import TOKENS
from distilbench.measurements.task_scores.measure import tasks
from distilbench.runs.folder import Run
from distilbench.sources.decoders import load_decoder


def fetch(params: PaluParams) -> tuple[dict[str, Any], Any]:
    """Reads both halves of the text, the tasks and the model, which fills the caches: what text and model are."""
    tasks.load(list(params.task_scores_tasks))
    loaded = load_decoder(**params.model_arguments() | {"device": "cpu"})
    prepared.tokens_of(params, loaded, calibrating=True)
    return prepared.tokens_of(params, loaded, calibrating=False)[1], loaded.info


def prepare(params: PaluParams, run: Run) -> dict[str, Any]:
    """Text, model and factors, recorded in data.json, model.json and compression.json.

    Returns:
        `folder`: of the run, where workers find tokens and factors.

    Raises:
        DataError: the text is too short for the longest prompt, or for a window of the calibration.
        ModelError: the group size does not fit the model, no rank file does, or the compressed model is not one.
        RunError: the run was begun with another text, another model or other ranks; both hashes are named.
    """
    loaded = load_decoder(**params.model_arguments())
    tokens, manifest = prepared.tokens_of(params, loaded, calibrating=False)
    longest = max(params.prefill_lengths + params.decode_contexts)
    if len(tokens) < longest:
        raise DataError(
            f"{manifest['name']} has {len(tokens)} tokens, the longest prompt has {longest}: take more text"
        )
    run.record_once("data.json", manifest, ("sha256",))
    prepared.record_model(run, loaded)
    written = io.BytesIO()
    np.save(written, tokens.numpy().astype(np.int32))
    paths.write_atomic(run.folder / TOKENS, written.getvalue())
    prepared.leave(params, run, loaded, tokens[: min(params.decode_contexts)])
    told = {"folder": str(run.folder)}
    handover.save(run, told)
    return told
