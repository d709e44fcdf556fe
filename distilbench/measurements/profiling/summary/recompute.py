"""What `verify` computes again of a profile: every derived number of a record, from its trace and its readings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distilbench.errors import RunError
from distilbench.measurements.profiling.measure import trace
from distilbench.measurements.profiling.records import ProfileRecord
from distilbench.measurements.profiling.summary import derive
from distilbench.measurements.sweep.summary.derive import warmup_of
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.states import MEASURED
from distilbench.runs.verify import differences


def recompute(folder: Path, records: list[ProfileRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its profile.jsonl.
    """
    return [found for record in records if record.status in MEASURED for found in _of_record(folder, record)]


def _of_record(folder: Path, record: ProfileRecord) -> list[str]:
    where = f"profile.jsonl, {record.cell} {record.pass_} {record.repetition}"
    try:
        again = _again(folder, record)
    except RunError as error:
        return [str(error)]
    if again["utilisation"]:
        again["utilisation"]["gpu_reason"] = record.utilisation and record.utilisation.gpu_reason  # is no number
    if not any(row.shapes for row in record.operators):  # from before these were recorded
        again["operators"] = [row | {"shapes": None, "kernels": None} for row in again["operators"]]
    said = record.model_dump(include=set(again))
    return differences({name: said[name] for name in again}, again, where)


def _again(folder: Path, record: ProfileRecord) -> dict[str, Any]:
    found = trace.read(folder / record.file("trace.json"))
    rows = {name: read_parquet(folder / record.file(f"{name}.parquet")) for name in ("forwards", "layers", "samples")}
    again = derive.fields_of(found, **rows)
    if read_parquet(folder / record.file("memory.parquet")) != derive.timeline(found):
        raise RunError(f"{folder / record.file('memory.parquet')} does not follow from the trace beside it")
    warm = [row | {"kind": "forward", "warmup": True} for row in rows["forwards"] if row["kind"] == "warmup"]
    warmup = warmup_of(warm, tested=bool(record.warmup) and record.warmup.settled is not None)
    return again | {"warmup": warmup, "status": "unstable" if warmup["settled"] is False else "ok"}
