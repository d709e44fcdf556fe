"""What `verify` computes again of dimension alignment: all medians, from the rounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from distilbench.measurements.alignment.records import AlignmentRecord, file_name
from distilbench.measurements.alignment.summary import derive
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.verify import of_files

#: Means and intervals, which may be rounded otherwise on another machine.
INEXACT = re.compile(r"(mean_ms|_95: \d+)$")


def recompute(folder: Path, records: list[AlignmentRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its alignment.jsonl.
    """

    def fields(record: AlignmentRecord) -> dict[str, Any]:
        return derive.fields_of(read_parquet(folder / file_name(record.cell, record.repetition)))

    return of_files(records, "alignment.jsonl", fields, INEXACT)
