"""What `verify` computes again of task scores: all of them, from the questions."""

from __future__ import annotations

import re
from pathlib import Path

from distilbench.errors import DistilbenchError
from distilbench.measurements.task_scores.records import TaskRecord, file_name
from distilbench.measurements.task_scores.summary import derive
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.states import MEASURED
from distilbench.runs.verify import differences

#: Intervals and probabilities, which may be rounded otherwise on another machine.
INEXACT = re.compile(r"(_95: \d+|mcnemar_p|visible)$")


def recompute(folder: Path, records: list[TaskRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its task_scores.jsonl.
    """
    return [found for record in records if record.status in MEASURED for found in _of_record(folder, record)]


def _of_record(folder: Path, record: TaskRecord) -> list[str]:
    where, said = f"task_scores.jsonl, {record.cell}", record.model_dump()
    try:
        again = derive.fields_of(read_parquet(folder / file_name(record.cell)))
    except DistilbenchError as error:
        return [f"{where}: {error}"]
    return differences({name: said[name] for name in again}, again, where, INEXACT)
