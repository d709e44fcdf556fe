"""The configurations of the study, and the order in which they are measured."""

from __future__ import annotations

from distilbench.harness.steps import in_rounds
from distilbench.measurements.training.params import AgnewsParams
from distilbench.measurements.training.records import LOOP, STEPS, TRAIN, TrainingCell
from distilbench.runs.measurement import Step
from distilbench.runs.parameters import Resolved


def cells_of(params: AgnewsParams) -> list[TrainingCell]:
    """One process first, then many, by number and scaling."""
    found = [_cell(params, 1, "one", params.batch_size)]
    for count in sorted({*params.processes} - {1}):
        for scaling in params.scalings:
            found.append(_cell(params, count, scaling, params.batch_size // (count if scaling == "strong" else 1)))
    return found


def _cell(params: AgnewsParams, processes: int, scaling: str, batch_size: int) -> TrainingCell:
    name = f"p{processes}-b{batch_size}" if scaling == "one" else f"p{processes}-{scaling}-b{batch_size}"
    rows = processes * batch_size * params.accumulation
    return TrainingCell(cell=name, processes=processes, scaling=scaling, batch_size=batch_size, rows_per_step=rows)


def plan(resolved: Resolved) -> list[Step]:
    """Timed steps in rounds, each with every configuration in shuffled order; the bare loop; the whole trainings."""
    params, cells = resolved.params, cells_of(resolved.params)
    steps = in_rounds(cells_of, STEPS)(resolved)
    if params.loop_blocks:
        steps.append((cells[0], LOOP, 0))
    return steps + [(cell, TRAIN, 0) for cell in trained(params)]


def trained(params: AgnewsParams) -> list[TrainingCell]:
    """The configurations that are trained to the end: steps of as many rows, so that accuracies can be compared."""
    cells = cells_of(params)
    if params.trainings == "all":
        return [cell for cell in cells if cell.scaling != "weak"]
    return cells[:1] if params.trainings == "one" else []
