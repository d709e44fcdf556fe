"""What `verify` computes again of an evaluation: every derived number of a record, from its predictions and batches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import RunError
from distilbench.measurements.evaluation.records import EvaluationRecord
from distilbench.measurements.evaluation.summary import derive
from distilbench.runs.states import MEASURED
from distilbench.runs.verify import differences

#: Means over many numbers, which numpy may add in another order on another machine.
INEXACT = re.compile(r"(macro_f1|weighted_f1|forward_s|tokenise_s|batch_times_ms: mean)$")


def recompute(folder: Path, records: list[EvaluationRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its evaluation.jsonl.
    """
    measured = [record for record in records if record.status in MEASURED]
    return [found for record in measured for found in _of_record(folder, record)]


def _of_record(folder: Path, record: EvaluationRecord) -> list[str]:
    where = f"evaluation.jsonl, {record.cell}"
    try:
        again = derive.fields_of(folder, record.cell, record.label_names, record.model_source == "random")
    except RunError as error:
        return [str(error)]
    said = record.model_dump(include=set(again))
    found = differences({name: said[name] for name in again}, again, where, INEXACT)
    return found + _unlike_data(paths.read_json(folder / "data.json"), record, where)


def _unlike_data(data: dict[str, Any], record: EvaluationRecord, where: str) -> list[str]:
    """Whether every row of the data was classified, and has its own label."""
    found = differences(
        {name: getattr(record, name) for name in ("rows", "rows_damaged")},
        {name: data[name] for name in ("rows", "rows_damaged")},
        f"{where}, against data.json",
    )
    if record.confusion is None:
        return found
    support = {one.label.strip().casefold(): one.support for one in record.per_class if one.support}
    return found + differences(support, data["labels"], f"{where}, rows by label against data.json")
