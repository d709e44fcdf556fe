"""summary.json of trainings: per configuration its rate, its speed-up over one process, its accuracy; and the doubts.

A speed-up is said only of equal budgets: on a CPU as many threads on as many cores in all, where a linear speed-up is
1; on GPUs one of the same kind per process, where it is their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilbench import paths
from distilbench.measurements.training.measure import design
from distilbench.measurements.training.params import AgnewsParams
from distilbench.measurements.training.records import LOOP, STEPS, TRAIN, TrainingRecord
from distilbench.runs.measurement import summary_head
from distilbench.runs.parameters import Resolved
from distilbench.runs.rawfiles import read_raw
from distilbench.runs.states import MEASURED
from distilbench.stats import median_interval, paired_ratio_interval

SUMMARY_VERSION = 1
LEAST_SHARE = 0.85  # of a bare loop's samples/s
Cell = dict[str, Any]
OF_TRAINING = (
    "trained_on", "epochs", "best_epoch", "test_accuracy", "test_rows", "test_wilson_95", "training_s",
    "interruptions",
)  # fmt: skip
OF_LOOP = ("loop_share", "loop_share_95", "loop_samples_per_s")


def summarise(folder: Path) -> dict[str, Any]:
    """summary.json of a run, a pure function of its other files."""
    config = paths.read_json(folder / "config.json")
    records = read_raw(folder / "training.jsonl", TrainingRecord)[0]
    params = AgnewsParams.model_validate(config["parameters"])
    planned = Counter((cell.cell, pass_name) for cell, pass_name, _ in design.plan(Resolved(params)))
    measured = {record.key: record for record in records if record.status in MEASURED}
    steps = {cell["cell"]: _of_pass(measured, cell["cell"], STEPS) for cell in config["cells"]}
    base = steps[config["cells"][0]["cell"]]
    cells = []
    for cell in config["cells"]:
        name = cell["cell"]
        wanted = {pass_name: count for (of, pass_name), count in planned.items() if of == name}
        tried = [record for record in records if record.cell == name]
        done = {pass_name for pass_name in wanted if len(_of_pass(measured, name, pass_name)) >= wanted[pass_name]}
        state = "ok" if done == set(wanted) else tried[-1].status if tried else "pending"
        if state in MEASURED and done != set(wanted):
            state = "pending"  # what is missing was not tried yet
        said = _speed(steps[name]) | _speed_up(base, steps[name]) | _whole(measured, name)
        cells.append(cell | {"state": state} | said)
    for cell in cells:
        cell["doubts"] = _doubts(cell, params.profile)
    return summary_head(config, SUMMARY_VERSION) | {"cells": cells}


def _of_pass(measured: dict[Any, TrainingRecord], cell: str, pass_name: str) -> dict[int, TrainingRecord]:
    """Its records by repetition."""
    return {number: one for (name, of, number), one in sorted(measured.items()) if (name, of) == (cell, pass_name)}


def _speed(records: dict[int, TrainingRecord]) -> Cell:
    """Medians over repetitions, with intervals where there are enough of them."""
    if not records:
        return {"repetitions": 0}
    every = list(records.values())
    rates = [record.throughput_samples_per_s for record in every]
    shares = [record.shares.model_dump() for record in every]
    return {
        "repetitions": len(every),
        "throughput_samples_per_s": float(np.median(rates)),
        "throughput_95": _pair(median_interval(rates)),
        "step_ms": float(np.median([record.step_ms for record in every])),
        "step_95_ms": _pair(median_interval([record.step_ms for record in every])),
        "shares": {name: float(np.median([share[name] for share in shares])) for name in shares[0]},
        "padding_share": float(np.median([record.padding_share for record in every])),
        "threads_per_process": every[0].threads_per_process,
        "gpus": every[0].gpus,
        "backend": every[0].backend,
        "peak_rss_MiB": max(sum(record.peak_rss_MiB) for record in every),
        "peak_cuda_allocated_MiB": max((max(r.peak_cuda_allocated_MiB, default=0) for r in every), default=0) or None,
    }


def _pair(ends: Sequence[float] | None) -> list[float] | None:
    return list(ends) if ends else None


def _speed_up(base: dict[int, TrainingRecord], own: dict[int, TrainingRecord]) -> Cell:
    """How many times as many samples/s as one process, over repetitions side by side; or why it is not said."""
    both = sorted(base.keys() & own.keys())
    if not both or own is base:
        return {}
    if refused := unequal(base[both[0]], own[both[0]]):
        return {"speedup_refused": refused}
    rates = [[records[number].throughput_samples_per_s for number in both] for records in (base, own)]
    linear = linear_speedup(own[both[0]])
    ratios, interval = np.array(rates[1]) / np.array(rates[0]), paired_ratio_interval(*rates)
    return {
        "speedup": float(np.median(ratios)),
        "speedup_95": _pair(interval),
        "linear_speedup": linear,
        "efficiency": float(np.median(ratios)) / linear,
        "efficiency_95": [end / linear for end in interval] if interval else None,
    }


def linear_speedup(record: TrainingRecord) -> float:
    """How many times as much hardware as one process has: 1 where processes share its cores, else their number.

    It is no bound: two processes may use a core each better than the threads of one process use both.
    """
    return float(record.processes) if record.gpus else 1.0


def unequal(one: TrainingRecord, many: TrainingRecord) -> str | None:
    """Why two configurations are not compared: their budgets differ; None: they do not."""
    if one.gpus or many.gpus:
        uuids = [gpu.rsplit(" ", 1)[-1] for gpu in many.gpus]
        kinds = sorted({gpu.rsplit(" ", 1)[0] for gpu in one.gpus + many.gpus})
        if len(set(uuids)) < many.processes:
            return f"{many.processes} processes share {len(set(uuids))} GPUs; each needs one of its own"
        return f"GPUs of several kinds: {', '.join(kinds)}" if len(kinds) > 1 else None
    threads = [record.processes * record.threads_per_process for record in (one, many)]
    cores = [len({core for own in record.cores_of_processes for core in own}) for record in (one, many)]
    if threads[0] != threads[1]:
        return f"{threads[1]} threads in {many.processes} processes against {threads[0]} threads in one"
    return f"{cores[1]} cores against {cores[0]}" if cores[0] != cores[1] else None


def _whole(measured: dict[Any, TrainingRecord], cell: str) -> Cell:
    """What its whole training and its bare loop say."""
    found: Cell = {}
    for pass_name, names in ((TRAIN, OF_TRAINING), (LOOP, OF_LOOP)):
        for record in _of_pass(measured, cell, pass_name).values():
            found |= record.model_dump(include=set(names))
    return found


def _doubts(cell: Cell, profile: str) -> list[str]:
    said = []
    if refused := cell.get("speedup_refused"):
        said.append(f"no speed-up is said, since the budgets differ: {refused}")
    if cell.get("speedup") and cell["speedup_95"] is None and profile == "full":
        said.append(f"{cell['repetitions']} repetitions: too few for an interval of the speed-up")
    if (share := cell.get("loop_share")) and share < LEAST_SHARE:
        said.append(
            f"the training reaches {share:.0%} of the samples/s of a bare loop: loading, clipping and notes cost more "
            f"than the {1 - LEAST_SHARE:.0%} that they may"
        )
    if cell.get("interruptions"):
        said.append("the training was interrupted: the energy of that epoch is not known")
    epochs = cell.get("epochs") or []
    if epochs and epochs[0]["energy_J"] is None:
        said.append(f"no energy: {epochs[0]['energy_reason']}")
    elif epochs and any(one["energy_scope"] == "host" for one in epochs):
        said.append("energy is that of the whole machine: what others did on it is in it")
    if skipped := sum(one["steps_skipped"] for one in epochs):
        said.append(f"{skipped} steps were skipped, since scaled gradients were not finite (float16)")
    if epochs:
        said.append("one training: another seed gives another accuracy")
    return said
