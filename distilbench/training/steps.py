"""What is written of every step of every process, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PHASES = ("data", "forward", "backward", "optimizer")  # of a step, one after the other
STEPS = pa.schema(
    [
        ("epoch", pa.int32()),
        ("step", pa.int64()),  # of the optimizer, from 1, over all epochs
        ("rank", pa.int32()),
        ("samples", pa.int32()),  # rows of this process that count
        ("tokens", pa.int64()),  # of these rows, without padding
        ("positions", pa.int64()),  # with padding
        ("loss_sum", pa.float64()),  # over these rows
        ("correct", pa.int32()),  # of these rows, by the logits that were trained on (with dropout)
        ("learning_rate", pa.float64()),  # of the first group of parameters
        ("gradient_norm", pa.float64()),  # before clipping, of all processes' mean gradient
        ("skipped", pa.bool_()),  # the scaled gradients were not finite: float16 alone
        *((f"{phase}_ms", pa.float64()) for phase in PHASES),
        ("allreduce_ms", pa.float64()),  # beside the backward pass
        ("allreduce_start_ms", pa.float64()),  # after the step's start
        ("step_ms", pa.float64()),
        ("started_ns", pa.int64()),  # on the clock that all processes of a machine share
    ]
)
#: Predictions after the epochs on the validation rows, and of the best epoch's weights on the test rows.
PREDICTIONS = pa.schema(
    [
        ("split", pa.string()),  # validation or test
        ("epoch", pa.int32()),  # from 1
        ("sample", pa.string()),
        ("label", pa.int32()),
        ("predicted", pa.int32()),
        ("logits", pa.list_(pa.float32())),
    ]
)


def read(files: Iterable[Path]) -> list[dict[str, Any]]:
    """The rows of some files, in order of step and rank."""
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return sorted(rows, key=lambda row: (row["step"], row["rank"]))


def epochs_of(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Per epoch: mean loss and accuracy over its rows while they were trained on, steps, rows and skipped steps."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        one = found.setdefault(
            row["epoch"],
            {"epoch": row["epoch"], "steps": set(), "rows": 0, "loss": 0.0, "correct": 0, "skipped": set()},
        )
        one["steps"].add(row["step"])
        one["rows"] += row["samples"]
        one["loss"] += row["loss_sum"]
        one["correct"] += row["correct"]
        one["skipped"] |= {row["step"]} if row["skipped"] else set()
    return [
        {
            "epoch": epoch,
            "steps": len(one["steps"]),
            "rows": one["rows"],
            "training_loss": one["loss"] / one["rows"],
            "training_accuracy": one["correct"] / one["rows"],
            "steps_skipped": len(one["skipped"]),
        }
        for epoch, one in sorted(found.items())
    ]
