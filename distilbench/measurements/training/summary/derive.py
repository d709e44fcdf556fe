"""What a record derives from its steps, predictions and blocks; `verify` computes it again."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from distilbench.errors import RunError
from distilbench.measurements.training.records import LOOP, STEPS, file_name
from distilbench.runs.rawfiles import read_parquet
from distilbench.stats import paired_ratio_interval, wilson_interval
from distilbench.training.steps import PHASES, epochs_of

Row = dict[str, Any]
READ = ("seconds", "validation_loss", "evaluation_s", "energy_J", "energy_source", "energy_scope", "energy_reason")


def fields_of(folder: Path, fields: Row) -> Row:
    """The fields of a record that follow from its files.

    Args:
        folder: of the run.
        fields: what says which record it is, with `warmup_steps`; of a training also `epochs`, of which the readings
            are taken (`READ`), and the rest is derived.

    Raises:
        RunError: a file is missing or damaged, or does not hold what it must.
    """
    name, number = fields["cell"], fields["repetition"]

    def rows(what: str) -> list[Row]:
        return read_parquet(folder / file_name(name, fields["pass_"], number, what))

    if fields["pass_"] == LOOP:
        return loop_fields(rows("blocks"))
    steps = rows("steps")
    if fields["pass_"] == STEPS:
        return speed_fields(steps, fields["warmup_steps"], fields["processes"])
    return training_fields(steps, rows("predictions"), fields["epochs"], fields["processes"])


# ------------------------------------------------------------------ speed


def speed_fields(rows: list[Row], warmup_steps: int, processes: int) -> Row:
    """Rate, step times and shares of the steps after the first ones.

    Raises:
        RunError: no step is left, or one lacks a process.
    """
    timed = _by_step([row for row in rows if row["step"] > warmup_steps], processes)
    starts = [min(row["started_ns"] for row in step) for step in timed]
    ends = [max(row["started_ns"] + row["step_ms"] * 1e6 for row in step) for step in timed]
    seconds = (max(ends) - min(starts)) / 1e9
    return {"throughput_samples_per_s": _samples(timed) / seconds} | _of_steps(timed)


def _by_step(rows: list[Row], processes: int) -> list[list[Row]]:
    """The rows of each step, in order; one per process."""
    found: dict[int, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        found[row["step"]][row["rank"]] = row
    if not found:
        raise RunError("no step was timed: timed_steps must be at least 1")
    numbers = sorted(found)
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise RunError(f"a step between {numbers[0]} and {numbers[-1]} is missing")
    if odd := [step for step, of in found.items() if len(of) > processes]:
        raise RunError(f"step {odd[0]} has rows of {len(found[odd[0]])} processes, not {processes}")
    return [[row for _, row in sorted(found[step].items())] for step in numbers]


def _samples(steps: list[list[Row]]) -> int:
    return sum(row["samples"] for step in steps for row in step)


def _of_steps(steps: list[list[Row]]) -> Row:
    longest = np.array([max(row["step_ms"] for row in step) for step in steps])
    rows = [row for step in steps for row in step]
    total = math.fsum(row["step_ms"] for row in rows)
    names = (*PHASES, "allreduce")
    return {
        "timed_steps": len(steps),
        "step_ms": float(np.median(longest)),
        "step_times_ms": {
            "mean": float(longest.mean()),
            "p50": float(np.median(longest)),
            "p90": float(np.percentile(longest, 90)),
            "max": float(longest.max()),
        },
        "shares": {name: math.fsum(row[f"{name}_ms"] for row in rows) / total for name in names},
        "padding_share": 1 - sum(row["tokens"] for row in rows) / sum(row["positions"] for row in rows),
    }


# ------------------------------------------------------------------ whole trainings


def training_fields(rows: list[Row], predictions: list[Row], epochs: list[Row], processes: int) -> Row:
    """Epochs, accuracies and rate of a whole training.

    Args:
        epochs: their readings.

    Raises:
        RunError: an epoch has no steps, or a row was classified twice.
    """
    _require_once(predictions)
    steps, trained = _by_step(rows, processes), {one["epoch"]: one for one in epochs_of(rows)}
    if set(trained) != {one["epoch"] for one in epochs}:
        raise RunError(f"there are steps of epochs {sorted(trained)}, and readings of {[e['epoch'] for e in epochs]}")
    found = [
        trained[one["epoch"]] | {name: one[name] for name in READ} | _validated(predictions, one) for one in epochs
    ]
    test = [row for row in predictions if row["split"] == "test"]
    if not test:
        raise RunError("no test row was classified")
    correct, seconds = _correct(test), math.fsum(one["seconds"] for one in epochs)
    return _of_steps(steps) | {
        "throughput_samples_per_s": _samples(steps) / seconds,
        "training_s": seconds,
        "epochs": found,
        "best_epoch": test[0]["epoch"],
        "test_accuracy": correct / len(test),
        "test_rows": len(test),
        "test_wilson_95": list(wilson_interval(correct, len(test))),
    }


def _require_once(predictions: list[Row]) -> None:
    seen = {(row["split"], row["epoch"], row["sample"]) for row in predictions}
    if len(seen) < len(predictions):
        raise RunError(f"{len(predictions) - len(seen)} rows were classified twice")


def _validated(predictions: list[Row], epoch: Row) -> Row:
    rows = [row for row in predictions if (row["split"], row["epoch"]) == ("validation", epoch["epoch"])]
    return {
        "validation_accuracy": _correct(rows) / len(rows) if rows else None,
        "validation_rows": len(rows) or None,
    }


def _correct(rows: list[Row]) -> int:
    """Rows whose label has the highest logit."""
    return sum(int(np.argmax(row["logits"])) == row["label"] for row in rows)


# ------------------------------------------------------------------ against a bare loop


def loop_fields(blocks: list[Row]) -> Row:
    """What the training's own code costs: pairs of blocks over the same tensors, in turn.

    Raises:
        RunError: there is no whole pair.
    """
    rates: dict[str, list[float]] = defaultdict(list)
    for row in sorted(blocks, key=lambda row: row["block"]):
        rates[row["kind"]].append(row["rows"] / row["seconds"])
    own, bare = rates["training"], rates["bare"]
    if not own or len(own) != len(bare):
        raise RunError(f"{len(own)} blocks of the training, {len(bare)} of the bare loop: these are no pairs")
    interval = paired_ratio_interval(bare, own)
    return {
        "throughput_samples_per_s": float(np.median(own)),
        "loop_samples_per_s": float(np.median(bare)),
        "loop_share": float(np.median(np.array(own) / np.array(bare))),
        "loop_share_95": list(interval) if interval else None,
    }
