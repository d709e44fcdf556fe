"""summary.json of dimension alignment: times by dimension, and what rounding up to a block costs and gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distilbench import paths
from distilbench.measurements.alignment.records import ATTENTION, AlignmentRecord
from distilbench.runs.measurement import summary_head
from distilbench.runs.rawfiles import read_raw
from distilbench.runs.states import MEASURED
from distilbench.stats import MIN_REPETITIONS, median_interval, paired_ratio_interval

SUMMARY_VERSION = 1
Row = dict[str, Any]


def summarise(folder: Path) -> Row:
    """summary.json of a run, a pure function of its other files."""
    config = paths.read_json(folder / "config.json")
    params = config["parameters"]
    records = read_raw(folder / "alignment.jsonl", AlignmentRecord)[0]
    cells = []
    for cell in config["cells"]:
        own = {one.repetition: one for one in records if one.cell == cell["cell"] and one.status in MEASURED}
        tried = [one for one in records if one.cell == cell["cell"]]
        state = "ok" if len(own) >= params["repetitions"] else tried[-1].status if tried else "pending"
        if state in MEASURED and len(own) < params["repetitions"]:
            state = "pending"  # what is missing was not tried yet
        times = by_dimension(list(own.values()))
        cells.append(
            cell | {
                "state": state, "repetitions": len(own), "dimensions": _rows(cell["operation"], times, params),
                "rounded": [_rounded(times, block) for block in params["blocks"]] if times else [],
            }
        )  # fmt: skip
    for cell in cells:
        cell["doubts"] = _doubts(cell, params["profile"])
    return summary_head(config, SUMMARY_VERSION) | {"cells": cells}


def by_dimension(records: list[AlignmentRecord]) -> dict[int, np.ndarray]:
    """Per dimension, ascending, its median time in ms in each process; on a GPU between the device's events."""
    found: dict[int, list[float]] = {}
    for record in sorted(records, key=lambda one: one.repetition):
        for one in record.times:
            ms = one.latency_ms if one.latency_device_ms is None else one.latency_device_ms
            found.setdefault(one.dimension, []).append(ms)
    return {size: np.array(times) for size, times in sorted(found.items())}


def _rows(operation: str, times: dict[int, np.ndarray], params: Row) -> list[Row]:
    return [
        {
            "dimension": size,
            "latency_ms": float(np.median(taken)),
            "latency_95_ms": _pair(median_interval(list(taken))),
            "gflop_per_s": operations_of(operation, size, params) / float(np.median(taken)) / 1e6,
        }
        for size, taken in times.items()
    ]


def operations_of(operation: str, size: int, params: Row) -> float:
    """Multiplications and additions that an operation needs; of a causal attention the half that is not masked."""
    tokens = params["tokens"]
    if operation == ATTENTION:
        return 4 * params["heads"] * tokens * tokens * size / 2
    return 2 * tokens * (params["hidden"] if operation == "down" else params["width"]) * size


def _rounded(times: dict[int, np.ndarray], block: int) -> Row:
    """Each dimension that is no multiple of a block against the next multiple, where both were timed.

    `memory_ratio` is what the larger one takes of memory, over the smaller one; `time_ratio` its time over that of the
    smaller one, in the same process. Below 1, the larger one is faster.
    """
    pairs = []
    for size, taken in times.items():
        above = -(-size // block) * block
        if size != above and above in times:
            larger = times[above]
            interval = paired_ratio_interval(taken, larger)
            pairs.append(
                {
                    "dimension": size, "rounded_to": above, "memory_ratio": above / size,
                    "time_ratio": float(np.median(larger / taken)), "time_ratio_95": _pair(interval),
                }
            )  # fmt: skip
    known = {name: [pair[name] for pair in pairs] for name in ("memory_ratio", "time_ratio")}
    surely = [pair for pair in pairs if pair["time_ratio_95"] and pair["time_ratio_95"][1] < 1]
    return {
        "block": block,
        "pairs": pairs,
        **{name: float(np.median(values)) if values else None for name, values in known.items()},
        "faster": sum(ratio < 1 for ratio in known["time_ratio"]),
        "surely_faster": len(surely),
    }


def _pair(ends: Any) -> list[float] | None:
    return [float(end) for end in ends] if ends else None


def _doubts(cell: Row, profile: str) -> list[str]:
    if profile == "full" and 0 < cell["repetitions"] < MIN_REPETITIONS:
        return [f"{cell['repetitions']} processes: too few for intervals; {MIN_REPETITIONS} are needed"]
    return []
