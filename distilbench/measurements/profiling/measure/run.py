"""How a profile measures: prepared as a sweep is, then a fresh process per cell and repetition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distilbench.harness import processes
from distilbench.measurements.profiling.params import ProfileParams
from distilbench.measurements.profiling.records import ProfileRecord
from distilbench.measurements.sweep.measure.design import grid
from distilbench.measurements.sweep.measure.run import fetch, is_prepared, load, once, prepare
from distilbench.measurements.sweep.measure.spec import Prepared, WorkerSpec
from distilbench.measurements.sweep.records import SweepCell
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved

__all__ = ["fetch", "is_prepared", "load", "once", "prepare", "take"]
WORKER = (*processes.WORKER, "distilbench.measurements.profiling.measure.worker")
PROTOCOL = (
    "warmup_cycles", "warmup_seconds", "warmup_max_seconds", "timed_forwards", "profiler_wait", "profiler_warmup",
    "profiler_active", "utilisation_s", "samples_per_cycle", "batches_per_cycle", "seed", "heap",
)  # fmt: skip


def take(run: Run, resolved: Resolved, prepared: Prepared) -> Callable[[SweepCell, str, int, int], ProfileRecord]:
    """What measures a step into a run, or into an attempt at a shard of it."""
    params = resolved.params

    def step(cell: SweepCell, pass_name: str, repetition: int, attempt: int) -> ProfileRecord:
        names = {"study": params.study, "pass": pass_name, "repetition": repetition, "attempt": attempt}
        spec = spec_of(run, params, prepared, cell.model_dump() | names)
        return processes.run_worker(run, WORKER, spec, params.repetition_timeout_s)

    return step


def spec_of(run: Run, params: ProfileParams, prepared: Prepared, identity: dict[str, Any]) -> WorkerSpec:
    """What the worker of a step is told."""
    protocol = {name: getattr(params, name) for name in PROTOCOL} | {"stem": stem(params, identity)}
    return WorkerSpec(
        run=str(run.folder),
        inputs=str(prepared.inputs),
        identity=identity,
        model=params.model_arguments(**prepared.fits),
        protocol=protocol | processes.cores(params.num_threads),
        label_names=prepared.label_names,
        texts=prepared.texts,
        tokenizer=prepared.tokenizer,
    )


def stem(params: ProfileParams, identity: dict[str, Any]) -> str:
    """How its files begin: the first process of the first cell has the plain names, `trace.json` and `stacks.txt`."""
    first = (grid(params)[0].cell, 0)
    cell, repetition = identity["cell"], identity["repetition"]
    return "" if (cell, repetition) == first else f"{cell}-{repetition:02d}."
