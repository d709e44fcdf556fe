"""Checks a run: everything derived is computed again from its raw files."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import RunError
from distilbench.measurements.sweep.records import Repetition
from distilbench.measurements.sweep.summary.derive import classification_fields, energy_fields, timing_fields, warmup_of
from distilbench.measurements.sweep.summary.join import SUMMARY_VERSION, summarise
from distilbench.runs.rawfiles import read_parquet, read_raw

#: Where a number came through BLAS or LAPACK (a dot product, least squares) or through numpy's vector logarithm: these
#: add and round otherwise on another machine or with another library. Everything else must be the same to the last bit.
INEXACT = re.compile(
    r"iterations_ms: autocorrelation$"  # stats.autocorrelation
    r"|nodes: (ratios: .+|p_value)$"  # stats.node_effects
    r"|control: ratio(_interval_95\[\d\])?$"  # stats.paired_ratio_interval
    r"|checks\[\d+\]: interval\[\d\]$"  # stats.ratio_interval in a calibration; shares there differ by far more
)
RELATIVE, ABSOLUTE = 1e-9, 1e-12  # a million times what rounding makes of these, and far below what a reader sees


def problems(folder: Path) -> list[str]:
    """Computes everything derived again from the raw files; says each difference (none: the run can be believed)."""
    found: list[str] = []
    if not (folder / "raw.jsonl").is_file():
        return [f"{folder / 'raw.jsonl'} is missing: nothing can be computed again"]
    try:
        for record in read_raw(folder / "raw.jsonl")[0]:
            found += _verify_record(folder, record)
        again = summarise(folder)
        if (folder / "summary.json").is_file():
            told = paths.read_json(folder / "summary.json")
            found += differences(told, _as_told(again, told), "summary.json")
        else:
            found.append(f"{folder / 'summary.json'} is missing: the run is unfinished")
    except RunError as error:
        found.append(str(error))
    return list(dict.fromkeys(found))  # a damaged file is met by the record and by the summary


def _as_told(again: Any, told: Any) -> Any:
    """A summary as an earlier version would have told it: fields that came later are left out, in its own version."""
    if told.get("schema_version") == SUMMARY_VERSION:
        return again
    return _only_known(again, told) | {"schema_version": told.get("schema_version")}


def _only_known(again: Any, told: Any) -> Any:
    if isinstance(again, dict) and isinstance(told, dict):
        return {key: _known(key, value, told[key]) for key, value in again.items() if key in told}
    if isinstance(again, list) and isinstance(told, list) and len(again) == len(told):
        return [_only_known(*pair) for pair in zip(again, told, strict=True)]
    return again


def _known(key: str, again: Any, told: Any) -> Any:
    """As `_only_known`; a reason is words, and an earlier version may have said it in others."""
    reworded = key.endswith("_reason") and isinstance(again, str) and isinstance(told, str)
    return told if reworded else _only_known(again, told)


def _verify_record(folder: Path, record: Repetition) -> list[str]:
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
    return differences(told, fields, where) + _verify_predictions(folder / "predictions.parquet", record, where)


def _told(record: Repetition, fields: dict[str, Any]) -> dict[str, Any]:
    """What the record says of these fields, as plain data."""
    told = record.model_dump(include=set(fields))
    return {name: told[name] for name in fields}


def _verify_predictions(predictions: Path, record: Repetition, where: str) -> list[str]:
    """Accuracy and logits of the first repetition, and of every later one that says it had the same logits."""
    if not predictions.is_file():
        return [f"{predictions} is missing"] if record.repetition == 0 else []
    rows = [row for row in read_parquet(predictions) if row["cell"] == record.cell]
    if not rows:
        return [f"{predictions} holds no predictions of {record.cell}"] if record.repetition == 0 else []
    again = classification_fields(rows, record.model_source == "random")
    if record.repetition > 0 and record.logits_sha256 != again["logits_sha256"]:
        return []  # summarise() says that the logits differ; whose accuracy it is cannot be known
    return differences({name: getattr(record, name) for name in again}, again, where)


def differences(told: Any, again: Any, where: str) -> list[str]:
    """Where two JSON values differ: path, what was told, what was computed again.

    Numbers that another machine may round otherwise (INEXACT) may differ by that much.
    """
    if isinstance(told, dict) and isinstance(again, dict):
        keys = sorted(told.keys() | again.keys())
        return [d for key in keys for d in differences(told.get(key), again.get(key), f"{where}: {key}")]
    if isinstance(told, list) and isinstance(again, list) and len(told) == len(again):
        return [d for i, pair in enumerate(zip(told, again, strict=True)) for d in differences(*pair, f"{where}[{i}]")]
    if isinstance(told, float) and isinstance(again, float) and INEXACT.search(where):
        return [] if math.isclose(told, again, rel_tol=RELATIVE, abs_tol=ABSOLUTE) else [_differs(told, again, where)]
    return [] if told == again else [_differs(told, again, where)]


def _differs(told: Any, again: Any, where: str) -> str:
    return f"{where} says {told!r}, computed again it is {again!r}"
