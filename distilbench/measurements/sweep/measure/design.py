"""The design of a sweep: its cells, and the order of measuring. No torch."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from distilbench.measurements.sweep.params import SweepParams
from distilbench.measurements.sweep.records import SweepCell
from distilbench.runs.parameters import Resolved


def grid(params: Any) -> list[SweepCell]:
    """The points of variants, length policies and batch sizes in reading order, of any study that has these."""
    return [
        SweepCell(
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


def cells_of(params: SweepParams) -> list[SweepCell]:
    """The points of the sweep in reading order, the control cell last."""
    cells = grid(params)
    if params.control and "timing" in params.passes:
        cells.append(control_of(cells[(len(params.batch_sizes) - 1) // 2]))
    return cells


def control_of(cell: SweepCell) -> SweepCell:
    """The same cell under another name: what differs between the two is what differs between equal things (A/A)."""
    return cell.model_copy(update={"cell": f"control-{cell.cell}", "control_of": cell.cell})


def plan(resolved: Resolved) -> list[tuple[SweepCell, str, int]]:
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


def for_jobs(resolved: Resolved) -> Resolved:
    """The design as jobs can measure it: energy in every cell, since no task knows which one is the best."""
    params = resolved.params
    if "energy" not in params.passes or params.energy_cells == "all":
        return resolved
    return replace(
        resolved,
        params=params.model_copy(update={"energy_cells": "all"}),
        origins=resolved.origins | {"energy_cells": "as for every submission"},
    )
