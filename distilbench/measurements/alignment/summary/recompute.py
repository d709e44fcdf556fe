"""What `verify` computes again of dimension alignment: all medians, from the rounds."""

from __future__ import annotations

import re
from pathlib import Path

from distilbench.errors import DistilbenchError
from distilbench.measurements.alignment.records import AlignmentRecord, file_name
from distilbench.measurements.alignment.summary import derive
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.states import MEASURED
from distilbench.runs.verify import differences

#: Means and intervals, which may be rounded otherwise on another machine.
INEXACT = re.compile(r"(mean_ms|_95: \d+)$")


def recompute(folder: Path, records: list[AlignmentRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its alignment.jsonl.
    """
    return [found for record in records if record.status in MEASURED for found in _of_record(folder, record)]


def _of_record(folder: Path, record: AlignmentRecord) -> list[str]:
    where, said = f"alignment.jsonl, {record.cell} {record.repetition + 1}", record.model_dump()
    try:
        again = derive.fields_of(read_parquet(folder / file_name(record.cell, record.repetition)))
    except DistilbenchError as error:
        return [f"{where}: {error}"]
    return differences({name: said[name] for name in again}, again, where, INEXACT)
