"""What `verify` computes again of perplexities: all of them, from the chunks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from distilbench.measurements.perplexity.records import PerplexityRecord, file_name
from distilbench.measurements.perplexity.summary import derive
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.verify import of_files

#: Exponentials and intervals, which may be rounded otherwise on another machine.
INEXACT = re.compile(r"(perplexity|bits_per_byte|nll_nat_per_token|ratio_of_baseline|_95: \d+)$")


def recompute(folder: Path, records: list[PerplexityRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its perplexity.jsonl.
    """

    def fields(record: PerplexityRecord) -> dict[str, Any]:
        return derive.fields_of(read_parquet(folder / file_name(record.cell)))

    return of_files(records, "perplexity.jsonl", fields, INEXACT)
