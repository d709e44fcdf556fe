"""What `verify` computes again of decoders: every derived number of a record, from its iterations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from distilbench.measurements.llm_speed.records import LlmRecord, file_name
from distilbench.measurements.llm_speed.summary import derive
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.verify import of_files

#: Means, spreads and intervals, which numpy and SciPy may round otherwise on another machine.
INEXACT = re.compile(r"(statistics_ms: (mean|std|p90|p99)|_95: \d+)$")


def recompute(folder: Path, records: list[LlmRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its llm_speed.jsonl.
    """

    def fields(record: LlmRecord) -> dict[str, Any]:
        return derive.fields_of(read_parquet(folder / file_name(record.cell, record.repetition)), record.model_dump())

    return of_files(records, "llm_speed.jsonl", fields, INEXACT)
