"""What a record derives from its rounds; `verify` computes it again."""

from __future__ import annotations

from statistics import fmean, median
from typing import Any

from distilbench.errors import ImplausibleError

Row = dict[str, Any]


def fields_of(rows: list[Row]) -> Row:
    """The medians by dimension, ascending, and their mean.

    Raises:
        ImplausibleError: nothing was timed, or an operation took no time.
    """
    timed = [row for row in rows if not row["warmup"]]
    if not timed or min(row["latency_ms"] for row in timed) <= 0:
        raise ImplausibleError("no operation was timed, or one took no time")
    times = [_at(size, [row for row in timed if row["dimension"] == size]) for size in _sizes(timed)]
    ends = [times[place]["latency_device_ms"] or times[place]["latency_ms"] for place in (0, -1)]
    mean_ms = fmean(one["latency_ms"] for one in times)
    return {"times": times, "mean_ms": mean_ms, "largest_over_smallest": ends[1] / ends[0]}


def _sizes(rows: list[Row]) -> list[int]:
    return sorted({row["dimension"] for row in rows})


def _at(size: int, rows: list[Row]) -> Row:
    on_device = [row["latency_device_ms"] for row in rows if row["latency_device_ms"] is not None]
    return {
        "dimension": size,
        "n": len(rows),
        "latency_ms": median(row["latency_ms"] for row in rows),
        "latency_device_ms": median(on_device) if on_device else None,
    }
