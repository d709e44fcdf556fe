"""What a record derives from its trace and its readings: the worker writes it, and `verify` computes it again."""

from __future__ import annotations

import json
from collections import Counter
from statistics import mean, median
from typing import Any

from distilbench.errors import ImplausibleError
from distilbench.measurements.profiling.measure import cost
from distilbench.measurements.profiling.measure.trace import CUDA, HOST, OPERATOR, Call, Trace, Window, busy_us
from distilbench.measurements.sweep.summary.derive import request_fields

MiB = 2**20
OUTSIDE = "outside of the layers"
NO_OPERATOR = "outside of operators"
NO_GPU = "the model ran on the CPU"
SHOWN = 8  # shapes, and kernels, of an operator
#: An operator that takes less than twice what one on a single element takes is all dispatch.
WORKS = 2.0

Rows = list[dict[str, Any]]


def fields_of(trace: Trace, forwards: Rows, layers: Rows, samples: Rows) -> dict[str, Any]:
    """All numbers of a record that follow from its files.

    Args:
        trace: of the profiled forwards.
        forwards, layers, samples: rows of the parquet files.

    Raises:
        ImplausibleError: a time in them is none.
    """
    read = readings_fields(forwards, layers, samples)
    return read | trace_fields(trace, read["forward_ms"])


def readings_fields(forwards: Rows, layers: Rows, samples: Rows) -> dict[str, Any]:
    """What follows without the trace, which a published copy has of one process per cell: no profiler was at work.

    Raises:
        ImplausibleError: a time in them is none.
    """
    forward_ms = _median_time([row["latency_ms"] for row in forwards if row["kind"] == "plain"])
    requests = [row for row in forwards if row["kind"] == "request"]
    return (
        {"forward_ms": forward_ms, "request": request_fields(requests)["request"]}
        | layer_fields(layers, forward_ms)
        | {"utilisation": utilisation(samples)}
    )


def trace_fields(trace: Trace, forward_ms: float) -> dict[str, Any]:
    """What follows from the trace, and what the profiler costs.

    Args:
        forward_ms: without the profiler.

    Raises:
        ImplausibleError: a time in it is none.
    """
    profiled_ms = _median_time([window.around.duration_us / 1e3 for window in trace.forwards])
    cost = {"profiled_ms": profiled_ms, "slow_down": profiled_ms / forward_ms}
    return cost | operator_fields(trace) | memory_fields(trace)


def _median_time(times_ms: list[float]) -> float:
    if not times_ms or min(times_ms) <= 0:
        raise ImplausibleError("a forward took no time by its clock")
    return median(times_ms)


def operator_fields(trace: Trace) -> dict[str, Any]:
    """The table of operators, what a call costs that does nothing, and how long the GPU was busy."""
    null_us = median(call.self_us for window in trace.nulls for call in window.calls if call.kind == OPERATOR)
    per_forward = [_by_operator(window) for window in trace.forwards]
    names = sorted({name for found in per_forward for name in found})
    rows = [_operator(name, [found.get(name, []) for found in per_forward], null_us, trace.on_gpu) for name in names]
    busy = [busy_us(window.kernels) / 1e3 for window in trace.forwards]
    return {
        "null_us": null_us,
        "operator_calls": sum(row["calls"] for row in rows),
        "operators": sorted(rows, key=lambda row: (-row["work_ms"], -row["self_ms"], row["operator"])),
        "gpu_busy_ms": median(busy) if trace.on_gpu else None,
        "gpu_busy_ms_reason": None if trace.on_gpu else NO_GPU,
    }


def _by_operator(window: Window) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {}
    for call in window.calls:
        if call.kind == OPERATOR:
            found.setdefault(call.name, []).append(call)
    return found


def _operator(name: str, per_forward: list[list[Call]], null_us: float, on_gpu: bool) -> dict[str, Any]:
    """A row of the table. Medians over forwards: an interruption falls into one of them."""
    costs = [cost.of(call, on_gpu) for calls in per_forward for call in calls]
    n, flops, moved = len(per_forward), sum(flops for flops, _ in costs), sum(moved for _, moved in costs)
    works = name not in cost.NO_WORK and (flops or moved)
    return {
        "operator": name,
        "calls": sum(map(len, per_forward)) / n,
        "self_ms": median(sum(call.self_us for call in calls) for calls in per_forward) / 1e3,
        "work_ms": median(_work_us(calls, null_us, on_gpu) for calls in per_forward) / 1e3 if works else 0.0,
        "flops": flops / n,
        "bytes": moved / n,
        "allocated_MiB": sum(call.allocated for calls in per_forward for call in calls) / n / MiB,
        "shapes": _shapes(per_forward, on_gpu) if works else None,
        "kernels": _kernels(per_forward) if on_gpu else None,
    }


def _shapes(per_forward: list[list[Call]], on_gpu: bool) -> Rows:
    """By the dimensions of their inputs, what its calls take."""
    named = [
        [(json.dumps(call.args.get("Input Dims", [])), call.kernels_us if on_gpu else call.self_us) for call in calls]
        for calls in per_forward
    ]
    return [{"dims": json.loads(dims), "calls": calls, "ms": ms} for dims, calls, ms in _longest(named)]


def _kernels(per_forward: list[list[Call]]) -> Rows | None:
    """By name, what the kernels that it launched take; None where it launched none."""
    found = _longest([[kernel for call in calls for kernel in call.kernels] for calls in per_forward])
    return [{"kernel": name, "calls": calls, "ms": ms} for name, calls, ms in found] or None


def _longest(per_forward: list[list[tuple[str, float]]]) -> list[tuple[str, float, float]]:
    """Of (name, µs) of each forward: (name, calls per forward, median ms per forward), the longest first."""
    found = []
    for name in sorted({name for times in per_forward for name, _ in times}):
        mine = [[us for other, us in times if other == name] for times in per_forward]
        found.append((name, sum(map(len, mine)) / len(mine), median(map(sum, mine)) / 1e3))
    return sorted(found, key=lambda row: -row[2])[:SHOWN]


def _work_us(calls: list[Call], null_us: float, on_gpu: bool) -> float:
    """What of its own time an operator works.

    On a CPU an operator's own time holds its dispatch and what the profiler adds to each call. Both are in the time of
    an operator on one element too, which was profiled in the same steps: that time is taken off.
    """
    if on_gpu:
        return sum(call.kernels_us for call in calls)
    own_us, idle_us = sum(call.self_us for call in calls), len(calls) * null_us
    return own_us - idle_us if own_us >= WORKS * idle_us else 0.0


def layer_fields(rows: Rows, forward_ms: float) -> dict[str, Any]:
    """The time of each layer, and by how much their sum differs from a forward that has no clock in it."""
    times: dict[str, list[float]] = {}
    for row in rows:
        times.setdefault(row["layer"], []).append(row["ms"])
    layers = [{"layer": name, "ms": median(times[name])} for name in sorted(times, key=lambda name: name == OUTSIDE)]
    total = sum(layer["ms"] for layer in layers)
    outside = sum(layer["ms"] for layer in layers if layer["layer"] == OUTSIDE)
    if not total:
        return {"layers": [], "layers_ratio": None, "outside_share": None}
    return {"layers": layers, "layers_ratio": total / forward_ms, "outside_share": outside / total}


def memory_fields(trace: Trace) -> dict[str, Any]:
    """The peak over all forwards, and whose results it was made of."""
    most, held_by = 0, Counter()
    for _, _, held, by in held_memory(trace):
        if held > most:
            most, held_by = held, Counter(by)
    rows = [{"operator": name, "MiB": size / MiB} for name, size in held_by.items() if size]
    return {"peak_MiB": most / MiB, "peak_by": sorted(rows, key=lambda row: (-row["MiB"], row["operator"]))}


def held_memory(trace: Trace) -> Any:
    """Per allocation: (number of the forward, the allocation, bytes held then, bytes held by operator).

    What was taken before the forward is not known, so giving it back counts for nothing.
    """
    device = CUDA if trace.on_gpu else HOST
    for number, window in enumerate(trace.forwards):
        live: dict[int, tuple[int, str]] = {}
        by: Counter[str] = Counter()
        for one in (one for one in window.allocations if one.device == device):
            if one.size > 0:
                live[one.address] = (one.size, _owner(one.call))
                by[live[one.address][1]] += one.size
            elif one.address in live:
                size, owner = live.pop(one.address)
                by[owner] -= size
            yield number, one, sum(by.values()), by


def _owner(call: Call | None) -> str:
    """The operator that asked for memory: not the one that only hands it out."""
    chain = [call, *call.ancestors()] if call else []
    operators = [one.name for one in chain if one.kind == OPERATOR]
    return next((name for name in operators if name not in cost.ALLOCATORS), (operators or [NO_OPERATOR])[0])


def timeline(trace: Trace) -> Rows:
    """The allocations of the forwards one by one (rows of the memory file)."""
    return [
        {"forward": n, "at_us": one.at_us, "bytes": one.size, "held_bytes": held, "operator": _owner(one.call)}
        for n, one, held, _ in held_memory(trace)
    ]


def utilisation(samples: Rows) -> dict[str, Any] | None:
    """Means over the samples; None where none was taken."""
    if not samples:
        return None
    known = {
        name: values
        for name in ("gpu_share", "gpu_memory_share")
        if (values := [row[name] for row in samples if row[name] is not None])
    }
    return {
        "samples": len(samples),
        "cpu_cores": mean(row["cpu_cores"] for row in samples),
        **{name: mean(known[name]) if name in known else None for name in ("gpu_share", "gpu_memory_share")},
    }
