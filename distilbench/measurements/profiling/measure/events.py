"""A trace in few bytes: the events that `trace.parse` looks at, as rows. All numbers of a record follow from these.

The trace itself has ten times as many bytes, most of them for the eye; a published run has no room for all of its own.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from distilbench.measurements.profiling.measure.trace import (
    ALLOCATION,
    ANNOTATION,
    FORWARD,
    NULL,
    ON_GPU,
    OPERATOR,
    main_thread,
)

EVENTS = pa.schema(
    [
        ("category", pa.string()),  # as in the trace: cpu_op, user_annotation, kernel, …; of an allocation: [memory]
        ("name", pa.string()),
        ("after_ns", pa.int64()),  # from the start of the event before
        ("takes_ns", pa.int64()),
        ("dims", pa.string()),  # of the inputs, as JSON
        ("types", pa.string()),
        ("number", pa.int64()),  # by which a kernel names its operator; null where no kernel is in the trace
        ("bytes", pa.int64()),
        ("block", pa.int64()),  # which block of memory, numbered by first appearance
        ("device", pa.int32()),
    ]
)
Events = list[dict[str, Any]]


def compact(events: Events) -> Events:
    """Rows of `EVENTS`, in order of time.

    Args:
        events: of a Chrome trace (`traceEvents`).

    Raises:
        ValueError: no forward is in it.
    """
    thread, launched = main_thread(events), any(event.get("cat") in ON_GPU for event in events)
    kept = sorted((e for e in events if _counts(e, thread)), key=lambda e: (e["ts"], -e.get("dur", 0.0)))
    blocks: dict[int, int] = {}
    rows, before = [], kept[0]["ts"]
    at_ns = 0
    for event in kept:
        args, now_ns = event.get("args", {}), round((event["ts"] - before) * 1e3)
        row: dict[str, Any] = {"category": event.get("cat", ""), "name": event["name"], "after_ns": now_ns - at_ns}
        if event["name"] == ALLOCATION:
            block = blocks.setdefault(args["Addr"], len(blocks))
            row |= {"bytes": args["Bytes"], "block": block, "device": args["Device Type"]}
        else:
            row["takes_ns"] = round(event["dur"] * 1e3)
        if event.get("cat") == OPERATOR:
            row |= {"dims": json.dumps(args.get("Input Dims", [])), "types": json.dumps(args.get("Input type", []))}
        if launched:
            row["number"] = args.get("External id")
        rows.append(row)
        at_ns = now_ns
    return rows


def expanded(rows: Events) -> Events:
    """The events again, as `trace.parse` takes them; times are in µs since the first one."""
    at_ns, events = 0, []
    for row in rows:
        at_ns += row["after_ns"]
        event: dict[str, Any] = {"cat": row["category"], "name": row["name"], "ts": at_ns / 1e3, "tid": 0}
        args: dict[str, Any] = {}
        if row.get("takes_ns") is not None:
            event["dur"] = row["takes_ns"] / 1e3
        if row.get("dims") is not None:
            args |= {"Input Dims": json.loads(row["dims"]), "Input type": json.loads(row["types"])}
        if row.get("block") is not None:
            args |= {"Addr": row["block"], "Bytes": row["bytes"], "Device Type": row["device"]}
        if row.get("number") is not None:
            args["External id"] = row["number"]
        events.append(event | {"args": args})
    return events


def _counts(event: dict[str, Any], thread: Any) -> bool:
    category = event.get("cat")
    mark = category == ANNOTATION and event["name"] in (FORWARD, NULL)
    return (
        mark
        or category in ON_GPU
        or event.get("name") == ALLOCATION
        or (category == OPERATOR and event["tid"] == thread)
    )
