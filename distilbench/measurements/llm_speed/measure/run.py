"""How decoders are measured: what is prepared once, what a worker is told. No torch."""

from __future__ import annotations

import importlib
from typing import Any

from distilbench.harness import processes
from distilbench.harness.handover import is_prepared, load, prepare_once
from distilbench.measurements.llm_speed.params import PaluParams
from distilbench.measurements.llm_speed.records import PREFILL, LlmCell
from distilbench.runs.folder import Run

__all__ = ["fetch", "is_prepared", "load", "prepare", "take"]
HERE = "distilbench.measurements.llm_speed.measure"


def prepare(params: PaluParams, run: Run) -> dict[str, Any]:
    """Text, model and factors of the run, once.

    Raises:
        RunError: the run was begun with another text, another model or other ranks; both hashes are named.
    """
    return prepare_once(run, params, f"{HERE}.prepare")


def fetch(params: PaluParams) -> tuple[dict[str, Any], Any]:
    """Reads text, tasks and model, which fills the caches: what text and model are."""
    return importlib.import_module(f"{HERE}.prepare").fetch(params)


def protocol_of(params: PaluParams, cell: LlmCell) -> dict[str, Any]:
    """How often an iteration is repeated."""
    warmup = params.warmup_prefill if cell.phase == PREFILL else params.warmup_decode
    return {"warmup": warmup, "measured": params.measured, "group_size": params.group_size, "heap": params.heap}


take = processes.taking(f"{HERE}.worker", protocol_of)
