"""What all configurations share: the rows, tokenised once, and what the model is. Needs torch."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from distilbench import paths
from distilbench.harness import handover
from distilbench.machine.device import parse, software
from distilbench.measurements.training.params import AgnewsParams
from distilbench.runs.folder import Run
from distilbench.sources.texts import MANIFEST_HASHES
from distilbench.training import corpus
from distilbench.training.model import build, describe


def prepare(params: AgnewsParams, run: Run) -> dict[str, Any]:
    """Reads, checks and tokenises all rows, and records them and the untrained model in data.json and model.json.

    Returns:
        The fields of `corpus.Prepared`.

    Raises:
        DataError: a split is empty, or has a class that training has not.
        RunError: the run was begun with other rows or another model; both hashes are named.
    """
    parse(params.device)
    prepared = corpus.prepare(params, run.folder / "work" / "rows")
    run.record_once("data.json", manifest(prepared), MANIFEST_HASHES)
    run.record_once("model.json", model_of(params, prepared), ("sha256",))
    run.add_to_environment("torch", software())
    fields = asdict(prepared)
    handover.save(run, fields)
    return fields


def fetch(params: AgnewsParams) -> tuple[dict[str, Any], Any]:
    """Reads rows and model, which fills the caches: what the two are."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = corpus.prepare(params, Path(folder))
        return manifest(prepared), SimpleNamespace(**model_of(params, prepared))


def manifest(prepared: corpus.Prepared) -> dict[str, Any]:
    """What the rows are, as data.json has it."""
    splits = prepared.data["splits"]
    return {
        "schema_version": 1,
        **prepared.data,
        "rows": sum(one["rows"] for one in splits.values()),
        "label_names": prepared.label_names,
        "tokenizer_file_sha256": paths.sha256_file(prepared.tokenizer / "tokenizer.json"),
    }


def model_of(params: AgnewsParams, prepared: corpus.Prepared) -> dict[str, Any]:
    """What is trained, before it is, as model.json has it."""
    return describe(build(params, prepared.label_names, prepared.vocab_size), params)
