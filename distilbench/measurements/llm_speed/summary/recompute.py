"""What `verify` computes again of decoders: every derived number of a record, from its iterations."""

from __future__ import annotations

import re
from pathlib import Path

from distilbench.errors import DistilbenchError
from distilbench.measurements.llm_speed.records import LlmRecord, file_name
from distilbench.measurements.llm_speed.summary import derive
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.states import MEASURED
from distilbench.runs.verify import differences

#: Means, spreads and intervals, which numpy and SciPy may round otherwise on another machine.
INEXACT = re.compile(r"(statistics_ms: (mean|std|p90|p99)|_95: \d+)$")


def recompute(folder: Path, records: list[LlmRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its llm_speed.jsonl.
    """
    return [found for record in records if record.status in MEASURED for found in _of_record(folder, record)]


def _of_record(folder: Path, record: LlmRecord) -> list[str]:
    where, said = f"llm_speed.jsonl, {record.cell} {record.repetition + 1}", record.model_dump()
    try:
        again = derive.fields_of(read_parquet(folder / file_name(record.cell, record.repetition)), said)
    except DistilbenchError as error:
        return [f"{where}: {error}"]
    return differences({name: said[name] for name in again}, again, where, INEXACT)
