"""The design of a sweep: its cells, the order of measuring, and the run folder that they go to. No torch."""

from __future__ import annotations

import random

from distilbench import runs
from distilbench.params import DistilbertParams, Resolved
from distilbench.records import Cell


def cells_of(params: DistilbertParams) -> list[Cell]:
    """The points of the sweep in reading order, the control cell last."""
    cells = [
        Cell(
            cell=f"{variant}-{params.dtype}-{policy}-b{size:03d}",
            device=params.device,
            variant=variant,
            dtype=params.dtype,
            batch_size=size,
            length_policy=policy,
            model_source=params.model_source,
        )
        for variant in params.variants
        for policy in params.length_policies
        for size in params.batch_sizes
    ]
    if params.control and "timing" in params.passes:
        cells.append(control_of(cells[(len(params.batch_sizes) - 1) // 2]))
    return cells


def control_of(cell: Cell) -> Cell:
    """The same cell under another name: what differs between the two is what differs between equal things (A/A)."""
    return cell.model_copy(update={"cell": f"control-{cell.cell}", "control_of": cell.cell})


def plan(resolved: Resolved) -> list[tuple[Cell, str, int]]:
    """All repetitions in the order of measuring: round by round, each round shuffled by the design's hash.

    Rounds interleave the cells, so that a slow quarter of an hour of the machine touches all of them alike. The energy
    of the best cell alone is not planned: which one that is shows only when the others are measured.
    """
    params, order = resolved.params, random.Random(resolved.design_hash)
    counts = {
        "timing": params.repetitions,
        "memory": params.memory_repetitions,
        "energy": int(params.energy_cells == "all"),
    }
    steps = []
    for where in params.passes:
        for repetition in range(counts[where]):
            cells = [cell for cell in cells_of(params) if where == "timing" or not cell.control_of]
            order.shuffle(cells)
            steps += [(cell, where, repetition) for cell in cells]
    return steps


def start(resolved: Resolved, new: bool = False) -> runs.Run:
    """The run to work on (see `runs.open_or_create`); no folder is made where a check of `preflight` fails.

    Raises:
        DistilbenchError: the device is not there, or what `preflight` or `runs.open_or_create` says.
    """
    params = resolved.params
    if params.device != "cpu":
        from distilbench.device import parse

        parse(params.device)
    if not runs.exists(params):
        from distilbench.bench import preflight  # which needs the plan

        preflight.check(params)
    runs.warn_of_code_without_commit(params.profile)
    return runs.open_or_create(resolved, cells_of(params), new)
