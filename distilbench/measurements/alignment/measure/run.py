"""How dimension alignment is measured: nothing is prepared; what a worker is told. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.harness import processes
from distilbench.measurements.alignment.params import AlignmentParams
from distilbench.measurements.alignment.records import AlignmentCell, AlignmentRecord
from distilbench.measurements.llm_speed.measure.spec import LlmSpec
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved

WORKER = (*processes.WORKER, "distilbench.measurements.alignment.measure.worker")
PROTOCOL = ("dtype", "dimensions", "tokens", "hidden", "width", "heads", "warmup", "measured", "seed", "heap")


def prepare(params: AlignmentParams, run: Run) -> dict[str, Any]:
    """What is measured on, in data.json: neither a text nor a model, but random numbers of these sizes."""
    sizes = {"tokens": params.tokens, "hidden": params.hidden, "width": params.width, "heads": params.heads}
    name = (
        f"products of {params.tokens:,} rows with {params.hidden:,} and {params.width:,} columns, attention of "
        f"{params.heads} heads over {params.tokens:,} tokens; random numbers"
    )
    sha256 = paths.sha256_bytes(paths.canonical_json(sizes | {"seed": params.seed}))
    data = {"schema_version": 1, "name": name, "source": "random", "sha256": sha256}
    run.record_once("data.json", data | sizes, ("sha256",))
    return {"folder": str(run.folder)}


def is_prepared(run: Run) -> bool:
    """Whether the sizes are on record."""
    return (run.folder / "data.json").is_file()


def load(run: Run) -> dict[str, Any]:
    """What `prepare` gave."""
    return {"folder": str(run.folder)}


def take(
    run: Run, resolved: Resolved, prepared: dict[str, Any]
) -> Callable[[AlignmentCell, str, int, int], AlignmentRecord]:
    """What measures a step into a run, or into an attempt at a shard of it."""
    params = resolved.params

    def step(cell: AlignmentCell, pass_name: str, repetition: int, attempt: int) -> AlignmentRecord:
        names = {"study": params.study, "pass": pass_name, "repetition": repetition, "attempt": attempt}
        spec = LlmSpec(
            run=str(run.folder),
            prepared=str(Path(prepared["folder"])),
            identity=cell.model_dump() | names,
            model={"device": params.device},
            protocol={name: getattr(params, name) for name in PROTOCOL} | processes.cores(params.num_threads),
        )
        return processes.run_worker(run, WORKER, spec, params.repetition_timeout_s)

    return step
