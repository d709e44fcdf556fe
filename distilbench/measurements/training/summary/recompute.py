"""What `verify` computes again of trainings: every derived number of a record, from steps, predictions and blocks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import RunError
from distilbench.measurements.training.records import TRAIN, TrainingRecord
from distilbench.measurements.training.summary import derive
from distilbench.runs.states import MEASURED
from distilbench.runs.verify import differences

#: Means, percentiles and intervals, which numpy and SciPy may round otherwise on another machine.
INEXACT = re.compile(r"(step_times_ms: (mean|p90)|loop_share_95.*|speedup_95.*|efficiency_95.*|_95: \d+)$")


def recompute(folder: Path, records: list[TrainingRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its training.jsonl.
    """
    measured = [record for record in records if record.status in MEASURED]
    return [found for record in measured for found in _of_record(folder, record)]


def _of_record(folder: Path, record: TrainingRecord) -> list[str]:
    where, said = f"training.jsonl, {record.cell}, {record.pass_} {record.repetition + 1}", record.model_dump()
    try:
        again = derive.fields_of(folder, said)
    except RunError as error:
        return [f"{where}: {error}"]
    found = differences({name: said[name] for name in again}, again, where, INEXACT)
    return found + (_unlike_data(paths.read_json(folder / "data.json"), record, where) if record.pass_ == TRAIN else [])


def _unlike_data(data: dict[str, Any], record: TrainingRecord, where: str) -> list[str]:
    """Whether every row was trained on once an epoch, and every test row was classified."""
    splits = {name: one["rows"] for name, one in data["splits"].items()}
    said = {"test": record.test_rows} | {f"epoch {one.epoch}": one.rows for one in record.epochs[:-1]}
    there = {"test": splits["test"]} | {f"epoch {one.epoch}": splits["train"] for one in record.epochs[:-1]}
    validated = {f"validation after epoch {one.epoch}": one for one in record.epochs if one.validation_rows}
    said |= {name: one.validation_rows for name, one in validated.items()}
    there |= dict.fromkeys(validated, splits["validation"])
    return differences(said, there, f"{where}, rows against data.json")
