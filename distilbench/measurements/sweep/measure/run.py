"""The sweep: every repetition of every cell in a fresh process, committed one by one, resumable at any point."""

from __future__ import annotations

import shutil
from typing import Any

from distilbench import paths
from distilbench.errors import Stopped
from distilbench.harness import shards
from distilbench.harness.processes import Prepared, measure_ceilings, measure_steps
from distilbench.measurements.sweep.measure.design import cells_of, plan
from distilbench.measurements.sweep.params import DistilbertParams
from distilbench.measurements.sweep.records import Cell
from distilbench.measurements.sweep.summary import join
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved
from distilbench.runs.states import FINAL
from distilbench.sources.batches import load_inputs, make_batches, padding_share, truncated_shares


def prepare(params: DistilbertParams, run: Run) -> Prepared:
    """Text, tokenizer and model of the run, loaded once and checked; of a run in parts, what its ingest prepared.

    Raises:
        RunError: the run was begun with other text or another model; both hashes are named.
    """
    if run.is_split and Prepared.is_there(run):
        return Prepared.load(run)
    from distilbench.measurements.sweep.measure import (
        prepare as measure_prepare,  # imports torch, which gathering does without
    )

    return measure_prepare.prepare(params, run)


def batch_table(params: DistilbertParams, prepared: Prepared) -> list[dict[str, Any]]:
    """Per length policy and batch size: batches per cycle, shapes, and the shares of padding and of cut sentences."""
    token_ids, _, _ = load_inputs(prepared.inputs)
    rows = []
    for policy in params.length_policies:
        cut, _ = truncated_shares(token_ids, policy, params.samples_per_cycle, params.seed)
        for size in params.batch_sizes:
            batches = make_batches(token_ids, size, policy, params.samples_per_cycle, params.seed)
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


def sweep(run: Run, resolved: Resolved, prepared: Prepared | None = None) -> dict[str, Any]:
    """Measures what is missing in the run and derives summary.json; returns the summary.

    Ctrl-C ends the current repetition and leaves a run that can be resumed; a kill leaves one too. A run in parts is
    measured elsewhere: what its parts finished is gathered.

    Raises:
        RunError: another process works on the run, or its files are damaged.
        Stopped: the file that $DISTILBENCH_STOP_FILE names was there after a repetition.
    """
    with run.held():
        for message in run.recover():
            print(message, flush=True)
        try:
            if run.is_split:
                print(
                    f"{shards.gather(run)} repetitions gathered from {len(shards.of(run, resolved))} parts", flush=True
                )
            else:
                _measure_missing(run, resolved, prepared or prepare(resolved.params, run))
        except KeyboardInterrupt:
            run.set_status("cancelled", f"interrupted; go on with: {run.go_on}")
            raise
        except Stopped as stopped:
            run.set_status("preempted", f"{stopped}; go on with: {run.go_on}")
            raise
        except Exception as error:
            run.set_status("failed", str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise
        return finish(run, resolved)


def _measure_missing(run: Run, resolved: Resolved, prepared: Prepared) -> None:
    params = resolved.params
    best_only = of_best_only(params)
    measure_ceilings(run, params)
    step = measure_steps(run, resolved, prepared, plan(resolved), run.repetitions(), extra=int(best_only))
    if best_only and (cell := best_cell(run, params)):
        step(cell, "energy", 0)


def of_best_only(params: DistilbertParams) -> bool:
    """Whether energy is measured in one cell only, which `best_cell` finds once all else is measured."""
    return "energy" in params.passes and params.energy_cells == "best"


def best_cell(run: Run, params: DistilbertParams) -> Cell | None:
    """The cell with the highest throughput, as the summary has it."""
    found = join.best(join.summarise(run.folder)["cells"])
    return next((cell for cell in cells_of(params) if found and cell.cell == found["cell"]), None)


def finish(run: Run, resolved: Resolved) -> dict[str, Any]:
    """Derives summary.json, sets the states, clears the scratch files."""
    derived = join.summarise(run.folder)
    paths.write_json(run.folder / "summary.json", derived)
    every = derived["cells"] + ([derived["control"]["cell"]] if derived["control"] else [])
    states = {cell["cell"]: cell["state"] for cell in every}
    if run.is_split:
        states |= shards.ends(run, resolved)
    bad = [f"{name} ({state})" for name, state in states.items() if state not in FINAL]
    run.set_status("failed" if bad else "ok", f"not measured: {', '.join(bad)}" if bad else "", states)
    if not bad:
        shutil.rmtree(run.folder / "work", ignore_errors=True)
    return derived
