"""summary.json of an evaluation: per cell what its record says, and the doubts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.measurements.evaluation.records import RANDOM, EvaluationRecord
from distilbench.runs.measurement import summary_head
from distilbench.runs.rawfiles import read_raw
from distilbench.runs.states import MEASURED

SUMMARY_VERSION = 1
FEW = 30  # rows of a class: below it one row more or less moves its recall by more than 3 %
NAMED = 4  # labels that a doubt names
SHOWN = (
    "rows", "rows_damaged", "label_names", "accuracy", "accuracy_wilson_95", "macro_f1", "weighted_f1",
    "accuracy_reason", "per_class", "confusion", "batches", "total_s", "elapsed_s", "forward_s", "tokenise_s",
    "throughput_samples_per_s", "throughput_batches_per_s", "batch_ms", "batch_times_ms", "tokens", "padding_share",
    "truncated_share", "processes", "load_s", "peak_rss_MiB", "peak_cuda_allocated_MiB",
)  # fmt: skip


def summarise(folder: Path) -> dict[str, Any]:
    """summary.json of a run, a pure function of its other files."""
    config = paths.read_json(folder / "config.json")
    records = read_raw(folder / "evaluation.jsonl", EvaluationRecord)[0]
    data = paths.read_json(file) if (file := folder / "data.json").is_file() else {}
    return summary_head(config, SUMMARY_VERSION) | {
        "cells": [_cell(cell, [r for r in records if r.cell == cell["cell"]], data) for cell in config["cells"]],
    }


def _cell(cell: dict[str, Any], tried: list[EvaluationRecord], data: dict[str, Any]) -> dict[str, Any]:
    record = next((record for record in tried if record.status in MEASURED), None)
    if record is None:
        return cell | {"state": tried[-1].status if tried else "pending", "doubts": []}
    said = record.model_dump(include=set(SHOWN))
    return cell | {"state": record.status} | said | {"doubts": _doubts(record, data)}


def _doubts(record: EvaluationRecord, data: dict[str, Any]) -> list[str]:
    said = [f"{RANDOM}; its times are those of a trained model of its size"] if record.confusion is None else []
    if record.rows_damaged:
        first = "; ".join(f"{row['place']}: {row['why']}" for row in data["first_damaged"][:3])
        said.append(f"{record.rows_damaged:,} damaged rows were left out, such as {first}")
    if record.truncated_share:
        said.append(f"{record.truncated_share:.1%} of the rows were cut to fit {record.length_policy}")
    if few := [one.label for one in record.per_class if 0 < one.support < FEW]:
        said.append(f"classes with fewer than {FEW} rows, whose F1 says little: {_some(few)}")
    if absent := [one.label for one in record.per_class if not one.support]:
        said.append(f"no row has these labels of the model: {_some(absent)}")
    if record.processes > 1:
        said.append(f"it was interrupted: {record.processes} processes share its time, each warm after its first batch")
    return [*said, "one process: its times have no interval"]


def _some(labels: list[str]) -> str:
    more = len(labels) - NAMED
    return ", ".join(labels[:NAMED]) + (f" and {more} more" if more > 0 else "")
