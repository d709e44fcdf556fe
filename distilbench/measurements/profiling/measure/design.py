"""The design of a profile: its cells, the order of measuring, and the names of files. No torch."""

from __future__ import annotations

import random
from typing import Any

from distilbench.measurements.profiling.params import ProfileParams
from distilbench.measurements.profiling.records import PASS
from distilbench.measurements.sweep.records import SweepCell
from distilbench.runs.measurement import Step
from distilbench.runs.parameters import Resolved


def cells(params: ProfileParams) -> list[SweepCell]:
    """The points in reading order."""
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


def plan(resolved: Resolved) -> list[Step]:
    """In rounds of shuffled order, so that no cell has all of a disturbance."""
    order, points = random.Random(resolved.design_hash), cells(resolved.params)
    rounds = range(resolved.params.repetitions)
    return [(cell, PASS, n) for n in rounds for cell in order.sample(points, len(points))]


def stem(params: ProfileParams, identity: dict[str, Any]) -> str:
    """How its files begin: the first process of the first cell has the plain names, `trace.json` and `stacks.txt`."""
    first = (cells(params)[0].cell, 0)
    cell, repetition = identity["cell"], identity["repetition"]
    return "" if (cell, repetition) == first else f"{cell}-{repetition:02d}."
