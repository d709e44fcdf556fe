"""What `verify` computes again of perplexities: all of them, from the chunks."""

from __future__ import annotations

import re
from pathlib import Path

from distilbench.errors import DistilbenchError
from distilbench.measurements.perplexity.records import PerplexityRecord, file_name
from distilbench.measurements.perplexity.summary import derive
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.states import MEASURED
from distilbench.runs.verify import differences

#: Exponentials and intervals, which may be rounded otherwise on another machine.
INEXACT = re.compile(r"(perplexity|bits_per_byte|nll_nat_per_token|ratio_of_baseline|_95: \d+)$")


def recompute(folder: Path, records: list[PerplexityRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its perplexity.jsonl.
    """
    return [found for record in records if record.status in MEASURED for found in _of_record(folder, record)]


def _of_record(folder: Path, record: PerplexityRecord) -> list[str]:
    where, said = f"perplexity.jsonl, {record.cell}", record.model_dump()
    try:
        again = derive.fields_of(read_parquet(folder / file_name(record.cell)))
    except DistilbenchError as error:
        return [f"{where}: {error}"]
    return differences({name: said[name] for name in again}, again, where, INEXACT)
