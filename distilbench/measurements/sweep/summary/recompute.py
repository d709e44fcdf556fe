"""What `verify` computes again of a sweep: every derived number of a record, from the files that it names."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from distilbench.errors import RunError
from distilbench.measurements.sweep.records import Repetition
from distilbench.measurements.sweep.summary.derive import classification_fields, energy_fields, timing_fields, warmup_of
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.verify import differences

#: Where a number came through BLAS or LAPACK (a dot product, least squares) or through numpy's vector logarithm: these
#: add and round otherwise on another machine or with another library. Everything else must be the same to the last bit.
INEXACT = re.compile(
    r"iterations_ms: autocorrelation$"  # stats.autocorrelation
    r"|nodes: (ratios: .+|p_value)$"  # stats.node_effects
    r"|control: ratio(_interval_95\[\d\])?$"  # stats.paired_ratio_interval
)


def recompute(folder: Path, records: list[Repetition]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its raw.jsonl.
    """
    predicted = _Predictions(folder / "predictions.parquet")
    return [difference for record in records for difference in _of_record(folder, record, predicted)]


class _Predictions:
    """The predictions of a run by cell; what they give is computed once a cell, for all of its repetitions."""

    def __init__(self, file: Path) -> None:
        self.file, self._given = file, {}

    @cached_property
    def _by_cell(self) -> dict[str, list[dict[str, Any]]]:
        by_cell: dict[str, list[dict[str, Any]]] = {}
        for row in read_parquet(self.file):
            by_cell.setdefault(row["cell"], []).append(row)
        return by_cell

    def given(self, record: Repetition) -> dict[str, Any] | None:
        """Accuracy and logits of the record's cell; None where it has no predictions."""
        if record.cell not in self._given:
            rows = self._by_cell.get(record.cell)
            self._given[record.cell] = rows and classification_fields(rows, record.model_source == "random")
        return self._given[record.cell]


def _of_record(folder: Path, record: Repetition, predicted: _Predictions) -> list[str]:
    if record.energy:
        fields = energy_fields(record.energy.model_dump(), record.energy_source)
        return differences(_told(record, fields), fields, f"raw.jsonl, {record.cell} energy")
    if not record.iterations_file:
        return []
    try:
        rows = read_parquet(folder / record.iterations_file, record.iterations_sha256)
        fields = timing_fields(rows)
    except RunError as error:
        return [str(error)]
    where = f"raw.jsonl, {record.cell} {record.pass_} {record.repetition}"
    if record.warmup:
        warmup = warmup_of(rows, tested=record.warmup.settled is not None)
        fields |= {"warmup": warmup, "status": "unstable" if warmup["settled"] is False else "ok"}
    told = _told(record, fields)
    if record.warmup is None:  # an early version told less, and gave other reasons for what it did not tell
        fields = {name: value for name, value in fields.items() if told[name] is not None and "reason" not in name}
        told = {name: told[name] for name in fields}
    return differences(told, fields, where) + _of_predictions(predicted, record, where)


def _told(record: Repetition, fields: dict[str, Any]) -> dict[str, Any]:
    """What the record says of these fields, as plain data."""
    told = record.model_dump(include=set(fields))
    return {name: told[name] for name in fields}


def _of_predictions(predicted: _Predictions, record: Repetition, where: str) -> list[str]:
    """Accuracy and logits of the first repetition, and of every later one that says it had the same logits."""
    if not predicted.file.is_file():
        return [f"{predicted.file} is missing"] if record.repetition == 0 else []
    if not (again := predicted.given(record)):
        return [f"{predicted.file} holds no predictions of {record.cell}"] if record.repetition == 0 else []
    if record.repetition > 0 and record.logits_sha256 != again["logits_sha256"]:
        return []  # summarise() says that the logits differ; whose accuracy it is cannot be known
    return differences({name: getattr(record, name) for name in again}, again, where)
