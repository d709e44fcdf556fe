"""summary.json: the passes of each cell joined, a pure function of the run's other files."""

from __future__ import annotations

from functools import reduce
from operator import or_
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from distilbench import paths
from distilbench.errors import RunError
from distilbench.measurements.sweep.records import MEASURED_IN, Repetition
from distilbench.measurements.sweep.summary import energy
from distilbench.measurements.sweep.summary.derive import classification_fields, not_finite, of_kind
from distilbench.measurements.sweep.summary.doubts import doubts_of
from distilbench.runs.measurement import summary_head
from distilbench.runs.rawfiles import read_parquet, read_raw
from distilbench.runs.states import FINAL, MEASURED
from distilbench.sources.batches import cycle_samples
from distilbench.stats import (
    autocorrelation,
    median_interval,
    node_effects,
    outliers,
    paired_ratio_interval,
    summary_of,
    t_interval,
    variance_split,
    verdict_of,
    wilson_interval,
)

WORST_FIRST = ("oom", "unavailable", "timeout", "failed", "invalid", "cancelled", "preempted", "skipped", "unstable")
#: 2: intervals, and where the variance comes from; 3: control, requests, phases, energy, roofline; 4: nodes;
#: 5: intervals of medians, cut text, threads, quotas, windows of energy one by one
SUMMARY_VERSION = 5
FORKED = (
    "its timed processes were forked from one and share its layout of memory, so their spread does not say how fresh "
    "processes differ"
)
WITH_INTERVAL = (
    "latency_ms", "latency_device_ms", "latency_request_ms", "latency_per_sample_ms", "throughput_samples_per_s",
)  # fmt: skip
#: Columns of the iterations in which the state of the machine stands, block by block.
TELEMETRY = (
    "foreign_cores", "stolen_cores", "cpu_MHz", "cpu_temperature_C", "cpu_throttles", "gpu_sm_MHz",
    "gpu_temperature_C", "gpu_power_W", "gpu_throttle_reasons", "gpu_foreign_processes",
)  # fmt: skip


def summarise(folder: Path) -> dict[str, Any]:
    """summary.json of a run: per cell the passes joined, medians over repetitions with their range, and doubts.

    Raises:
        RunError: a file is missing or is not the one that was committed.
    """
    config = paths.read_json(folder / "config.json")
    records = _counting(read_raw(folder / "raw.jsonl", Repetition)[0])
    predictions = folder / "predictions.parquet"
    predicted = read_parquet(predictions) if predictions.is_file() else []
    ceilings = paths.read_json(file) if (file := folder / "ceilings.json").is_file() else None
    params = config["parameters"]
    every = [_cell_summary(folder, cell, records, predicted, params, ceilings) for cell in config["cells"]]
    cells = [cell for cell in every if not cell.get("control_of")]
    head = summary_head(config, SUMMARY_VERSION)
    forked = FORKED if any(cell.get("start") == "forked" for cell in every) else None
    return head | {
        "note": "; ".join(filter(None, [head["note"], forked])) or None,
        "cells": cells,
        "best_throughput": best(cells),
        "control": next((_control(cell, records) for cell in every if cell.get("control_of")), None),
        "nodes": _nodes(records),
        "ceilings": ceilings,
    }


def _nodes(records: dict[str, list[Repetition]]) -> dict[str, Any] | None:
    """The node as a factor: how many repetitions each measured, and how much they differ; None on one machine."""
    timed = [r for mine in records.values() for r in mine if r.pass_ == "timing" and r.status in MEASURED and r.node]
    counts = {node: sum(record.node == node for record in timed) for node in sorted({r.node for r in timed})}
    if len(counts) < 2:
        return None
    found = node_effects([(r.node, r.cell, r.repetition, r.latency_ms) for r in timed])
    return {"repetitions": counts} | (found or {"ratios": None, "p_value": None, "rounds": None})


def _control(control: dict[str, Any], records: dict[str, list]) -> dict[str, Any]:
    """The A/A comparison: the control cell against the cell that it repeats. FASTER and SLOWER are false."""
    medians = [
        {r.repetition: r.latency_ms for r in records.get(name, []) if r.pass_ == "timing" and r.status in MEASURED}
        for name in (control["control_of"], control["cell"])
    ]
    rounds = sorted(medians[0].keys() & medians[1].keys())  # both were measured in each, in shuffled order
    base, other = ([of_cell[number] for number in rounds] for of_cell in medians)
    known = bool(rounds)
    interval = paired_ratio_interval(base, other)
    return {
        "cell": control,
        "ratio": float(np.exp(np.mean(np.log(other)) - np.mean(np.log(base)))) if known else None,
        "ratio_interval_95": list(interval) if interval else None,
        "verdict": verdict_of(interval),
    }


def _counting(records: list[Repetition]) -> dict[str, list[Repetition]]:
    """By cell, the repetitions that count: the finished ones, else the last attempt.

    One that ended for want of memory may have been tried again with more of it.

    Raises:
        RunError: a repetition was committed twice.
    """
    last: dict[tuple[str, str, int], Repetition] = {}
    for record in records:
        before = last.get(record.key)
        again = before and before.status == "oom" and record.attempt > before.attempt
        if before and before.status in FINAL and not again:
            raise RunError(f"repetition {record.key} is in raw.jsonl twice")
        last[record.key] = record
    by_cell: dict[str, list[Repetition]] = {}
    for record in last.values():
        by_cell.setdefault(record.cell, []).append(record)
    return by_cell


def _cell_summary(
    folder: Path,
    cell: dict[str, Any],
    records: dict[str, list[Repetition]],
    predicted: list,
    params: dict[str, Any],
    ceilings: dict[str, Any] | None,
) -> dict[str, Any]:
    mine = records.get(cell["cell"], [])
    passes = ("timing", "memory", "energy")
    done = {where: [r for r in mine if r.pass_ == where and r.status in MEASURED] for where in passes}
    energy_of = mine if params.get("energy_cells") != "best" else [r for every in records.values() for r in every]
    result: dict[str, Any] = dict(cell) | {"state": cell_state(mine, params, bool(cell.get("control_of")))}
    for name, where in MEASURED_IN.items():
        if name in ("accuracy", "logits_sha256"):
            continue
        missing = energy.why_none(energy_of, params) if where == "energy" else _no_repetition(where, params)
        result |= _over_repetitions(name, done[where], missing)
    steady = "throughput_steady_samples_per_s"
    result |= _over_repetitions(steady, done["timing"], _no_repetition("timing", params))
    result |= energy.of_cell(done["energy"])
    result["request"] = _medians([r.request for r in done["timing"] if r.request])
    result["memory"] = _medians([r.memory for r in done["memory"] if r.memory])
    result["roofline"] = _roofline(result, done["timing"], params, ceilings)
    for name in ("padding_share", "truncated_share", "truncated_tokens_share"):
        result[name] = next(iter(_known(mine, name)), None)
    predicted = [row for row in predicted if row["cell"] == cell["cell"]]
    result |= _accuracy(predicted, params["model_source"] == "random")
    rows = [read_parquet(folder / r.iterations_file, r.iterations_sha256) for r in done["timing"]]
    iterations = [[r["latency_ms"] for r in of_kind(one, "forward") if not r["warmup"]] for one in rows]
    faults = _known(done["timing"], "page_faults_per_iteration")
    fetched = {"page_faults": [min(faults), max(faults)] if faults else None}  # of processes, on average
    result["iterations_ms"] = _iterations(iterations) | fetched if iterations else None
    result |= {"start": "forked"} if any(r.start == "forked" for r in done["timing"]) else {}
    result["telemetry"] = _telemetry([row for one in rows for row in one])
    for name in ("threads_used", "product_cores", "parent_cores", "foreign_cores", "stolen_cores"):
        result[name] = median(known) if (known := _known(done["timing"], name)) else None
    for name in ("quota_periods", "throttled_periods", "throttled_s"):
        result[name] = sum(known) if (known := _known(done["timing"], name)) else None
    why_not = next(iter(_known(done["timing"], "quota_reason")), None)
    result["quota_reason"] = why_not if result["quota_periods"] is None else None
    bad = [r for r in mine if r.error and not _no_counter(r)]
    result["errors"] = [f"{r.pass_} {r.repetition}: {r.status}: {r.error}" for r in bad]
    if why := not_finite(predicted):
        result["state"], result["errors"] = "invalid", [*result["errors"], f"predictions: invalid: {why}"]
    result["doubts"] = doubts_of(done["timing"], result, params)
    return result


def _known(parts: list[Any], name: str) -> list[Any]:
    """What each of these has under that name, where it has something."""
    return [value for part in parts if (value := getattr(part, name)) is not None]


def _iterations(by_process: list[list[float]]) -> dict[str, Any]:
    """What single iterations say: their distribution, as many of each process, and where their variance comes from."""
    shortest = min(map(len, by_process))  # the noisier a process, the longer it is measured: all count alike here
    every = [ms for one in by_process for ms in one[:shortest]]
    like_the_one_before = [r for one in by_process if (r := autocorrelation(one)) is not None]
    split = variance_split(by_process)
    return summary_of(every) | {
        "outliers": sum(outliers(one) for one in by_process),
        "autocorrelation": median(like_the_one_before) if like_the_one_before else None,
        "variance_ms2": split,
        "advice": _advice(split),
    }


def _advice(split: dict[str, float] | None) -> str | None:
    """Where the next minute of measuring pays."""
    if split is None:
        return None
    more = "repetitions (processes differ)" if split["share_between"] >= 0.5 else "iterations (processes agree)"
    return f"a narrower interval needs more {more}"


def _over_repetitions(name: str, records: list[Repetition], missing: str) -> dict[str, Any]:
    """Median over repetitions with the range and their number; null with a reason where there is none."""
    values = _known(records, name)
    if not values:
        reasons = [getattr(record, f"{name}_reason") for record in records]
        return {name: None, f"{name}_reason": reasons[0] if reasons else missing}
    interval = t_interval(values) if name in WITH_INTERVAL else None
    of_median = median_interval(values)
    return {
        name: median(values),
        f"{name}_range": [min(values), max(values)],
        f"{name}_repetitions": len(values),
        **({f"{name}_interval_95": list(interval)} if interval else {}),
        **({f"{name}_interval_of_median": list(of_median)} if of_median else {}),
    }


def _no_repetition(where: str, params: dict[str, Any]) -> str:
    """Why a pass has no number: nobody asked for it, or none of its repetitions came to an end."""
    asked = where in params["passes"]
    return f"no finished repetition of the {where} pass" if asked else f"the {where} pass was not asked for"


def _accuracy(rows: list[dict[str, Any]], random_weights: bool) -> dict[str, Any]:
    if not rows:
        return {"accuracy": None, "accuracy_reason": "no predictions"}
    fields = classification_fields(rows, random_weights)
    if fields["accuracy"] is not None:
        right = sum(row["label"] == row["predicted"] for row in rows)
        fields |= {"accuracy_n": len(rows), "accuracy_wilson_95": list(wilson_interval(right, len(rows)))}
    return fields


def _medians(parts: list[Any]) -> dict[str, Any] | None:
    """Field by field the median over repetitions; reasons as the first of them says."""
    if not parts:
        return None
    found: dict[str, Any] = {}
    for name in type(parts[0]).model_fields:
        values = _known(parts, name)
        numbers = [value for value in values if not isinstance(value, str)]
        found[name] = median(numbers) if numbers else next(iter(values), None)
    return found


def _roofline(
    cell: dict[str, Any], timing: list[Repetition], params: dict[str, Any], ceilings: dict[str, Any] | None
) -> dict[str, Any] | None:
    """How near the cell comes to what the machine can do: the longer of both least times, over the time measured."""
    flops, moved = (next(iter(_known(timing, f"{name}_per_cycle")), None) for name in ("flops", "bytes"))
    dtype = "bfloat16" if cell["variant"] == "autocast" else cell["dtype"]
    rate = (ceilings or {}).get("matrix_flops_per_s", {}).get(dtype)
    if not (flops and moved and rate and cell["throughput_samples_per_s"]):
        return None
    samples = cycle_samples(params["samples_per_cycle"], params.get("batches_per_cycle"), cell["batch_size"])
    seconds = samples / cell["throughput_samples_per_s"]
    least = {"compute": flops / rate, "memory": moved / ceilings["memory_bytes_per_s"]}
    bound = max(least, key=least.get)
    return {
        "bound": bound,
        "fraction": least[bound] / seconds,
        "flops_per_s": flops / seconds,
        "bytes_per_s": moved / seconds,
        "flops_per_byte": flops / moved,
    }


def _telemetry(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The state of the machine between timed cycles: lowest and highest reading; null where none could be had.

    Throttles are added up; of masks of reasons every bit counts.
    """
    found: dict[str, Any] = {}
    for name in TELEMETRY:
        values = [value for row in rows if not row["warmup"] and (value := row.get(name)) is not None]
        found[name] = [min(values), max(values)] if values else None
        if values and name == "cpu_throttles":
            found[name] = sum(values)
        if values and name == "gpu_throttle_reasons":
            found[name] = reduce(or_, values)
    return found


def _no_counter(record: Repetition) -> bool:
    """A machine without an energy counter is nothing that went wrong with a cell."""
    return record.pass_ == "energy" and record.status == "unavailable"


def cell_state(records: list[Repetition], params: dict[str, Any], control: bool = False) -> str:
    """The state of a cell from its repetitions: the worst of them, or pending while some are missing.

    A control cell is only timed.
    """
    states = {record.status for record in records if not _no_counter(record)}
    for state in WORST_FIRST:
        if state in states:
            return state
    wanted = {"timing": params["repetitions"], "memory": params["memory_repetitions"], "energy": 0}
    wanted["energy"] = int(params.get("energy_cells") == "all")
    passes = ["timing"] if control else params["passes"]
    missing = any(sum(r.pass_ == where for r in records) < wanted[where] for where in passes)
    return ("running" if records else "pending") if missing else "ok"


def best(cells: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The cell with the highest throughput at a fixed length (only there is work per sentence the same)."""
    measured = [c for c in cells if c["throughput_samples_per_s"] is not None]
    fixed = [c for c in measured if c["length_policy"] != "longest"] or measured
    if not fixed:
        return None
    shortest = min((c["length_policy"] for c in fixed), key=lambda policy: (len(policy), policy))
    best = max((c for c in fixed if c["length_policy"] == shortest), key=lambda c: c["throughput_samples_per_s"])
    told = ("cell", "batch_size", "length_policy", "variant", "throughput_samples_per_s", "state")
    return {name: best[name] for name in told}
