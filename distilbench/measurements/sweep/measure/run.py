"""How a sweep measures: what is prepared once, what a worker is told, which step comes when the others are done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distilbench.collectors import energy
from distilbench.harness import processes
from distilbench.measurements.sweep.measure.design import cells_of
from distilbench.measurements.sweep.measure.spec import Prepared, WorkerSpec, predictions_file
from distilbench.measurements.sweep.params import SweepParams
from distilbench.measurements.sweep.records import Repetition, SweepCell, replace_predictions
from distilbench.measurements.sweep.summary import join
from distilbench.runs.folder import Run
from distilbench.runs.measurement import Step
from distilbench.runs.parameters import Resolved
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.states import MEASURED
from distilbench.sources.batches import (
    cycle_samples,
    load_inputs,
    load_padding,
    make_batches,
    padding_share,
    truncated_shares,
)

WORKER = (*processes.WORKER, "distilbench.measurements.sweep.measure.worker")
PROTOCOL = (
    "warmup_cycles", "warmup_seconds", "warmup_max_seconds", "min_cycles", "min_iterations", "min_seconds",
    "half_width", "max_seconds", "samples_per_cycle", "batches_per_cycle", "seed", "num_threads", "energy_windows",
    "energy_window_s", "energy_idle_s", "modelled_power_W", "heap",
)  # fmt: skip


is_prepared, load = Prepared.is_there, Prepared.load


def prepare(params: SweepParams, run: Run) -> Prepared:
    """Text, tokenizer and model of the run, loaded once and checked; of a run in shards, what its ingest prepared.

    Raises:
        RunError: the run was begun with other text or another model; both hashes are named.
    """
    if run.is_split and Prepared.is_there(run):
        return Prepared.load(run)
    from distilbench.measurements.sweep.measure import prepare as preparing  # needs torch; gathering does without

    return preparing.prepare(params, run)


def fetch(params: SweepParams) -> tuple[dict[str, Any], Any]:
    """Loads text and model, which fills the caches, and checks that they belong together: what the two are."""
    from distilbench.measurements.sweep.measure import prepare as preparing

    _, _, manifest, loaded = preparing.load_all(params)
    return manifest, loaded.info


def batch_table(params: SweepParams, prepared: Prepared) -> list[dict[str, Any]]:
    """Per length policy and batch size: batches per cycle, shapes, and the shares of padding and of cut sentences."""
    (token_ids, _, _), padding = load_inputs(prepared.inputs), load_padding(prepared.inputs)
    rows = []
    for policy in params.length_policies:
        for size in params.batch_sizes:
            samples = cycle_samples(params.samples_per_cycle, params.batches_per_cycle, size)
            cut, _ = truncated_shares(token_ids, policy, samples, params.seed)
            batches = make_batches(token_ids, size, policy, samples, params.seed, padding)
            lengths = [batch.input_ids.shape[1] for batch in batches]
            rows.append(
                {
                    "length_policy": policy,
                    "batch_size": size,
                    "batches": len(batches),
                    "tokens": f"{min(lengths)}" if min(lengths) == max(lengths) else f"{min(lengths)}–{max(lengths)}",
                    "padding": round(padding_share(batches), 3),
                    "sentences cut": round(cut, 3),
                }
            )
    return rows


def once(run: Run, params: SweepParams) -> None:
    """The machine's ceilings, in the types that the variants compute in."""
    dtypes = sorted({params.dtype} | ({"bfloat16"} if "autocast" in params.variants else set()))
    threads = processes.cores(params.num_threads)["num_threads"]
    processes.measure_ceilings(run, params.device, dtypes, params.ceiling_s, threads, params.repetition_timeout_s)


def take(run: Run, resolved: Resolved, prepared: Prepared) -> Callable[[SweepCell, str, int, int], Repetition]:
    """What measures a step into a run, or into an attempt at a shard of it."""
    params = resolved.params
    no_energy = energy.unavailable_reason(params.device) if params.modelled_power_W is None else None

    def step(cell: SweepCell, where: str, repetition: int, attempt: int) -> Repetition:
        told = {"study": params.study, "pass": where, "repetition": repetition, "attempt": attempt}
        spec = spec_of(run, params, prepared, cell.model_dump() | told)
        if where == "energy" and no_energy:
            return processes.unavailable(run, spec.identity, no_energy)
        # memory is what a process of its own needs, joules are those of one process; a CUDA context cannot be forked
        fresh = params.fresh_processes or where != "timing" or params.device != "cpu"
        record = processes.run_worker(run, WORKER, spec, params.repetition_timeout_s, fresh)
        if _has_predictions(record):
            rows = read_parquet(predictions_file(run.folder, record.cell))
            replace_predictions(run.folder, {record.cell}, rows)
        return record

    return step


def spec_of(run: Run, params: SweepParams, prepared: Prepared, identity: dict[str, Any]) -> WorkerSpec:
    """What the worker of a step is told."""
    return WorkerSpec(
        run=str(run.folder),
        inputs=str(prepared.inputs),
        identity=identity,
        model=params.model_arguments(**prepared.fits),
        protocol={name: getattr(params, name) for name in PROTOCOL} | processes.cores(params.num_threads),
        label_names=prepared.label_names,
        texts=prepared.texts,
        tokenizer=prepared.tokenizer,
    )


def _has_predictions(record: Repetition) -> bool:
    """Those of the first timed repetition of a cell are kept; the others have the same logits, or say so."""
    return record.pass_ == "timing" and record.repetition == 0 and record.status in MEASURED


def bring(run: Run, new: list[tuple[Run, Repetition]]) -> None:
    """Brings the predictions of all cells that come in from attempts at shards, in one go."""
    first = [(attempt, record) for attempt, record in new if _has_predictions(record)]
    files = {attempt.folder: read_parquet(attempt.folder / "predictions.parquet") for attempt, _ in first}
    rows = [row for a, r in first for row in files[a.folder] if row["cell"] == r.cell]
    if rows:
        replace_predictions(run.folder, {record.cell for _, record in first}, rows)


def count_later(params: SweepParams) -> int:
    """1 where energy is measured in one cell only, which shows once all else is measured."""
    return int("energy" in params.passes and params.energy_cells == "best")


def later(run: Run, params: SweepParams) -> list[Step]:
    """The energy of the cell with the highest throughput, as the summary has it, where no other is asked for."""
    if not count_later(params):
        return []
    found = join.best(join.summarise(run.folder)["cells"])
    return [(cell, "energy", 0) for cell in cells_of(params) if found and cell.cell == found["cell"]]
