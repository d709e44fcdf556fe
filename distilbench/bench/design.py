"""The design of a sweep: its cells, the order of measuring, and the run folder that they go to. No torch."""

from __future__ import annotations

import random

from distilbench import runs
from distilbench.params import DistilbertParams, Resolved
from distilbench.records import Cell


def cells_of(params: DistilbertParams) -> list[Cell]:
    """The points of the sweep in reading order."""
    return [
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


def plan(resolved: Resolved) -> list[tuple[Cell, str, int]]:
    """All repetitions in the order of measuring: round by round, each round shuffled by the design's hash.

    Rounds interleave the cells, so that a slow quarter of an hour of the machine touches all of them alike.
    """
    params, order = resolved.params, random.Random(resolved.design_hash)
    counts = {"timing": params.repetitions, "memory": params.memory_repetitions}
    steps = []
    for where in params.passes:
        for repetition in range(counts[where]):
            cells = cells_of(params)
            order.shuffle(cells)
            steps += [(cell, where, repetition) for cell in cells]
    return steps


def start(resolved: Resolved, new: bool = False) -> runs.Run:
    """The run to work on (see `runs.open_or_create`); no folder is made for a device that is not there."""
    if resolved.params.device != "cpu":
        from distilbench.device import parse

        parse(resolved.params.device)
    return runs.open_or_create(resolved, cells_of(resolved.params), new)
