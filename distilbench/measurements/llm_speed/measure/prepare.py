"""What all cells of a run share: the text as tokens, what the model is, and the factors of its compressed form."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from distilbench import paths
from distilbench.errors import DataError
from distilbench.harness import handover
from distilbench.lowrank import checkpoint, compress, prepared, shapes
from distilbench.machine.device import software
from distilbench.measurements.llm_speed.measure.spec import FACTORS, TOKENS
from distilbench.measurements.llm_speed.params import PaluParams
from distilbench.measurements.llm_speed.records import BASELINE
from distilbench.measurements.task_scores.measure import tasks
from distilbench.runs.folder import Run
from distilbench.sources.decoders import LoadedDecoder, load_decoder


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
    of_this_process = ("device", "attention", "load_s")  # each repetition has its own
    model = {key: value for key, value in vars(loaded.info).items() if key not in of_this_process}
    run.record_once("model.json", model | {"label_names": []}, ("sha256",))
    run.add_to_environment("torch", software())
    written = io.BytesIO()
    np.save(written, tokens.numpy().astype(np.int32))
    paths.write_atomic(run.folder / TOKENS, written.getvalue())
    if set(params.variants) - {BASELINE}:
        _compress(params, run, loaded, tokens)
    told = {"folder": str(run.folder)}
    handover.save(run, told)
    return told


def _compress(params: PaluParams, run: Run, loaded: LoadedDecoder, tokens: torch.Tensor) -> None:
    """Finds ranks and factors, proves that the cache shrinks, and leaves them for the workers."""
    of = shapes.of_config(loaded.module.config, params.group_size)
    made, record = prepared.compressed(params, params.ratio, params.rank_search, params.ratio_dir, of, loaded)
    proof = compress.prove(made, tokens[None, : min(params.decode_contexts)].to(loaded.module.device))
    checkpoint.save(made, run.folder / FACTORS, loaded.info.name, record)
    run.record_once("compression.json", prepared.content(made, proof, record), ("ranks_sha256",))
