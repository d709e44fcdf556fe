"""How decoders are measured: what is prepared once, what a worker is told. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distilbench.harness import processes
from distilbench.harness.handover import is_prepared, load
from distilbench.measurements.llm_speed.measure.spec import LlmSpec
from distilbench.measurements.llm_speed.params import PaluParams
from distilbench.measurements.llm_speed.records import PREFILL, LlmCell, LlmRecord
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved

__all__ = ["is_prepared", "load"]
WORKER = (*processes.WORKER, "distilbench.measurements.llm_speed.measure.worker")


def prepare(params: PaluParams, run: Run) -> dict[str, Any]:
    """Text, model and factors of the run, checked once; of a run in shards, what its ingest prepared.

    Raises:
        RunError: the run was begun with another text, another model or other ranks; both hashes are named.
    """
    if run.is_split and is_prepared(run):
        return load(run)
    from distilbench.measurements.llm_speed.measure import prepare as preparing  # needs torch

    return preparing.prepare(params, run)


def fetch(params: PaluParams) -> tuple[dict[str, Any], Any]:
    """Reads text and model, which fills the caches: what the two are."""
    from distilbench.measurements.llm_speed.measure import prepare as preparing

    return preparing.fetch(params)


def take(run: Run, resolved: Resolved, prepared: dict[str, Any]) -> Callable[[LlmCell, str, int, int], LlmRecord]:
    """What measures a step into a run, or into an attempt at a shard of it."""
    params = resolved.params

    def step(cell: LlmCell, pass_name: str, repetition: int, attempt: int) -> LlmRecord:
        names = {"study": params.study, "pass": pass_name, "repetition": repetition, "attempt": attempt}
        spec = LlmSpec(
            run=str(run.folder),
            prepared=prepared["folder"],
            identity=cell.model_dump() | names,
            model=params.model_arguments(),
            protocol=protocol_of(params, cell),
        )
        return processes.run_worker(run, WORKER, spec, params.repetition_timeout_s)

    return step


def protocol_of(params: PaluParams, cell: LlmCell) -> dict[str, Any]:
    """How often an iteration is repeated, and on which cores."""
    warmup = params.warmup_prefill if cell.phase == PREFILL else params.warmup_decode
    own = {"warmup": warmup, "measured": params.measured, "group_size": params.group_size, "heap": params.heap}
    return own | processes.cores(params.num_threads)
