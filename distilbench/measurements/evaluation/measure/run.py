"""How an evaluation measures: rows are prepared once, then one process per cell goes over all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distilbench.harness import processes
from distilbench.measurements.evaluation.measure import chunks, watch
from distilbench.measurements.evaluation.measure.spec import EvaluationSpec, Prepared
from distilbench.measurements.evaluation.params import EvaluationParams
from distilbench.measurements.evaluation.records import EvaluationRecord
from distilbench.measurements.sweep.records import SweepCell
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved

WORKER = (*processes.WORKER, "distilbench.measurements.evaluation.measure.worker")
is_prepared, load = Prepared.is_there, Prepared.load


def prepare(params: EvaluationParams, run: Run) -> Prepared:
    """Rows, tokenizer and model of the run, read once and checked; of a run in shards, what its ingest prepared.

    Raises:
        DataError: a row is damaged and none may be; it is named.
        RunError: the run was begun with other rows or another model; both hashes are named.
    """
    if run.is_split and Prepared.is_there(run):
        return Prepared.load(run)
    from distilbench.measurements.evaluation.measure import prepare as preparing  # needs torch; gathering does without

    return preparing.prepare(params, run)


def fetch(params: EvaluationParams) -> tuple[dict[str, Any], Any]:
    """Reads rows and model, which fills the caches, and checks that they belong together: what the two are."""
    from distilbench.measurements.evaluation.measure import prepare as preparing

    with tempfile.TemporaryDirectory() as folder:
        _, manifest, _, loaded, _ = preparing.load_all(params, Path(folder) / "rows.jsonl")
    return manifest, loaded.info


def take(run: Run, resolved: Resolved, prepared: Prepared) -> Callable[[SweepCell, str, int, int], EvaluationRecord]:
    """What evaluates a cell into a run, or into an attempt at a shard of it, after the chunks that are there."""
    params = resolved.params

    def step(cell: SweepCell, pass_name: str, repetition: int, attempt: int) -> EvaluationRecord:
        names = {"study": params.study, "pass": pass_name, "repetition": repetition, "attempt": attempt}
        spec = spec_of(run, params, prepared, cell.model_dump() | names)
        chunks.take_over(run.folder, cell.cell)
        file, total = chunks.place(run.folder, cell.cell), -(-prepared.count // params.rows_per_chunk)
        with watch.progress(file, total, params.rows_per_chunk, prepared.count, cell.cell):
            return processes.run_worker(run, WORKER, spec, params.repetition_timeout_s)

    return step


def spec_of(run: Run, params: EvaluationParams, prepared: Prepared, identity: dict[str, Any]) -> EvaluationSpec:
    """What the worker of a step is told."""
    protocol = {"rows_per_chunk": params.rows_per_chunk, "seed": params.seed, "heap": params.heap}
    return EvaluationSpec(
        run=str(run.folder),
        rows=prepared.rows,
        tokenizer=prepared.tokenizer,
        identity=identity,
        model=params.model_arguments(prepared.vocab_size),
        protocol=protocol | processes.cores(params.num_threads),
        label_names=prepared.label_names,
        rows_damaged=prepared.rows_damaged,
    )
