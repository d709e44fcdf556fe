"""How trainings are measured: rows are prepared once, then one process or a group of them measures each step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.harness import processes
from distilbench.harness.handover import is_prepared, load
from distilbench.measurements.training.measure import design, watch
from distilbench.measurements.training.measure.spec import TrainingSpec
from distilbench.measurements.training.params import AgnewsParams
from distilbench.measurements.training.records import TRAIN, TrainingCell, TrainingRecord
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved
from distilbench.runs.states import MEASURED
from distilbench.training.params import TrainingParams

__all__ = ["is_prepared", "load"]
WORKER = (*processes.WORKER, "distilbench.measurements.training.measure.launch")
STATE = "state.pt"  # of `training.checkpoint`, which needs torch


def prepare(params: AgnewsParams, run: Run) -> dict[str, Any]:
    """Rows and tokenizer of the run, read once and checked; of a run in shards, what its ingest prepared.

    Raises:
        DataError: a split is empty, or has a class that training has not.
        RunError: the run was begun with other rows or another model; both hashes are named.
    """
    if run.is_split and is_prepared(run):
        return load(run)
    from distilbench.measurements.training.measure import prepare as preparing  # needs torch

    return preparing.prepare(params, run)


def fetch(params: AgnewsParams) -> tuple[dict[str, Any], Any]:
    """Reads rows and model, which fills the caches: what the two are."""
    from distilbench.measurements.training.measure import prepare as preparing

    return preparing.fetch(params)


def take(
    run: Run, resolved: Resolved, prepared: dict[str, Any]
) -> Callable[[TrainingCell, str, int, int], TrainingRecord]:
    """What measures a step into a run, or into an attempt at a shard of it."""
    params = resolved.params

    def step(cell: TrainingCell, pass_name: str, repetition: int, attempt: int) -> TrainingRecord:
        names = {"study": params.study, "pass": pass_name, "repetition": repetition, "attempt": attempt}
        job = spec_of(run, params, prepared, cell.model_dump() | names)
        folder = Path(job.work)
        if pass_name == TRAIN:
            _take_over(run, folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # nothing of an earlier attempt is gone on with
        with watch.shown(folder / watch.LOG):
            record = processes.run_worker(run, WORKER, job, params.repetition_timeout_s)
        if record.status in MEASURED and pass_name == TRAIN and cell == design.trained(params)[0]:
            _leave_checkpoint(run, params, record)
        return record

    return step


def spec_of(run: Run, params: AgnewsParams, prepared: dict[str, Any], identity: dict[str, Any]) -> TrainingSpec:
    """What the worker of a step is told."""
    names = ("warmup_steps", "timed_steps", "loop_blocks", "block_steps", "heap")
    own = {name: getattr(params, name) for name in TrainingParams.model_fields}
    cores = processes.cores(params.num_threads)
    stem = f"{identity['cell']}-{identity['pass']}-{identity['repetition']:02d}"
    return TrainingSpec(
        run=str(run.folder),
        work=str(run.folder / "work" / "training" / stem),
        identity=identity,
        params=own | {"batch_size": identity["batch_size"], "profile": params.profile},
        prepared=prepared,
        protocol={name: getattr(params, name) for name in names} | cores,
    )


def _take_over(run: Run, folder: Path) -> None:
    """In an attempt at a shard of a run: begins with the state of the earlier attempt that saved one last.

    It is copied, since that attempt may have been believed lost and still be writing.
    """
    if folder.exists() or not (run.folder / "attempt.json").is_file():
        return
    name = folder.relative_to(run.folder)
    earlier = [other / name for other in run.folder.parent.iterdir() if (other / name / STATE).is_file()]
    if earlier:
        newest = max(earlier, key=lambda place: (place / STATE).stat().st_mtime_ns)
        with paths.write_folder(folder) as part:
            shutil.copytree(newest, part, dirs_exist_ok=True)


def _leave_checkpoint(run: Run, params: AgnewsParams, record: TrainingRecord) -> None:
    """A copy of the trained classifier where people look for it; tests do without."""
    if params.profile == "ci":
        return
    from distilbench.training import checkpoint  # needs torch

    name = f"distilbert_{record.trained_on}"
    folder = run.folder / "checkpoints" / record.cell
    print(f"the trained classifier: {checkpoint.copy(name, folder, paths.checkpoints_root())}", flush=True)
