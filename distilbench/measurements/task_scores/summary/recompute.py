"""What `verify` computes again of task scores: all of them, from the questions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from distilbench.measurements.task_scores.records import TaskRecord, file_name
from distilbench.measurements.task_scores.summary import derive
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.verify import of_files

#: Intervals and probabilities, which may be rounded otherwise on another machine.
INEXACT = re.compile(r"(_95: \d+|mcnemar_p|visible)$")


def recompute(folder: Path, records: list[TaskRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its task_scores.jsonl.
    """

    def fields(record: TaskRecord) -> dict[str, Any]:
        return derive.fields_of(read_parquet(folder / file_name(record.cell)))

    return of_files(records, "task_scores.jsonl", fields, INEXACT)
