"""What `verify` computes again of a profile: every derived number of a record, from its trace and its readings."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from distilbench.errors import RunError
from distilbench.measurements.profiling.measure import events, trace
from distilbench.measurements.profiling.records import TIMELINE, TRACE, ProfileRecord
from distilbench.measurements.profiling.summary import derive
from distilbench.measurements.sweep.summary.derive import warmup_of
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.states import MEASURED
from distilbench.runs.verify import differences


def recompute(folder: Path, records: list[ProfileRecord]) -> list[str]:
    """Where what records derive differs from what their files say now.

    Args:
        folder: of the run.
        records: the lines of its profile.jsonl.
    """
    left_out = Run(folder).left_out
    measured = [record for record in records if record.status in MEASURED]
    return [found for record in measured for found in _of_record(folder, record, left_out)]


def _of_record(folder: Path, record: ProfileRecord, left_out: Collection[str]) -> list[str]:
    where = f"profile.jsonl, {record.cell} {record.pass_} {record.repetition}"
    has_trace = record.events not in left_out
    try:
        again = _again(folder, record, left_out)
    except RunError as error:
        return [str(error)]
    if again["utilisation"]:
        again["utilisation"]["gpu_reason"] = record.utilisation and record.utilisation.gpu_reason  # is no number
    if has_trace and not any(row.shapes for row in record.operators):  # from before these were recorded
        again["operators"] = [row | {"shapes": None, "kernels": None} for row in again["operators"]]
    said = record.model_dump(include=set(again))
    return differences({name: said[name] for name in again}, again, where)


def _again(folder: Path, record: ProfileRecord, left_out: Collection[str]) -> dict[str, Any]:
    rows = {name: read_parquet(folder / record.file(f"{name}.parquet")) for name in ("forwards", "layers", "samples")}
    again = derive.readings_fields(**rows)
    if record.events not in left_out:
        found = _trace(folder, record, left_out)
        again |= derive.trace_fields(found, again["forward_ms"])
        timeline = record.file(TIMELINE)
        if timeline not in left_out and read_parquet(folder / timeline) != derive.timeline(found):
            raise RunError(f"{folder / timeline} does not follow from the trace beside it")
    warm = [row | {"kind": "forward", "warmup": True} for row in rows["forwards"] if row["kind"] == "warmup"]
    warmup = warmup_of(warm, tested=bool(record.warmup) and record.warmup.settled is not None)
    return again | {"warmup": warmup, "status": "unstable" if warmup["settled"] is False else "ok"}


def _trace(folder: Path, record: ProfileRecord, left_out: Collection[str]) -> trace.Trace:
    file = record.file(TRACE)
    if record.events == file:  # from before there were events
        return trace.read(folder / file)
    rows = read_parquet(folder / record.events)
    if file not in left_out and _all_fields(events.compact(trace.load(folder / file))) != rows:
        raise RunError(f"{folder / record.events} does not follow from the trace beside it")
    return trace.parse(events.expanded(rows))


def _all_fields(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As they are read: null where there is nothing."""
    return [dict.fromkeys(events.EVENTS.names) | row for row in rows]
