"""Derived numbers: pure functions of a run's files, so that `distilbench verify run` can compute each of them again."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from distilbench import paths
from distilbench.errors import RunError
from distilbench.params import PROFILES
from distilbench.records import FINAL, MEASURED_IN, Repetition, read_parquet, read_raw
from distilbench.stats import autocorrelation, outliers, summary_of, t_interval, variance_split, wilson_interval

WORST_FIRST = ("oom", "unavailable", "timeout", "failed", "invalid", "cancelled", "preempted", "skipped", "unstable")
SUMMARY_VERSION = 2  # 2: intervals, and where the variance comes from
WITH_INTERVAL = ("latency_ms", "latency_device_ms", "latency_per_sample_ms", "throughput_samples_per_s")
#: From how many cores on it is said beside the numbers.
BUSY = {
    "parent_cores": (0.01, "the parent used {:.2f} cores while it was timed"),
    "foreign_cores": (0.2, "other processes used {:.1f} cores while it was timed"),
    "stolen_cores": (0.05, "the hypervisor gave {:.2f} cores to others while it was timed"),
}
NO_DEVICE_CLOCK = "a CPU has no clock of its own: on this device the host's time is the time of the forward"


def timing_fields(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A record's timing numbers from its iterations (rows of the parquet file)."""
    timed = [row for row in rows if not row["warmup"]]
    total_ms, samples = math.fsum(row["latency_ms"] for row in timed), sum(row["samples"] for row in timed)
    device_ms = [row["latency_device_ms"] for row in timed]
    on_device = device_ms[0] is not None
    return {
        "n_warmup": len(rows) - len(timed),
        "n_iterations": len(timed),
        "n_cycles": len({row["cycle"] for row in timed}),
        "latency_ms": median(row["latency_ms"] for row in timed),
        "latency_device_ms": median(device_ms) if on_device else None,
        "latency_device_ms_reason": None if on_device else NO_DEVICE_CLOCK,
        "latency_request_ms_reason": "not part of this version's timing pass",
        "latency_per_sample_ms": total_ms / samples,
        "throughput_samples_per_s": samples / total_ms * 1e3,
    }


def classification_fields(rows: list[dict[str, Any]], random_weights: bool) -> dict[str, Any]:
    """A record's accuracy and logits hash from its predictions (rows of predictions.parquet)."""
    logits = np.array([row["logits"] for row in rows], dtype=np.float32)
    right = sum(row["label"] == row["predicted"] for row in rows)
    return {
        "logits_sha256": paths.sha256_bytes(logits.tobytes()),
        "accuracy": None if random_weights else right / len(rows),
        "accuracy_reason": "random weights classify nothing" if random_weights else None,
    }


def summarise(folder: Path) -> dict[str, Any]:
    """summary.json of a run: per cell the passes joined, medians over repetitions with their range, and doubts.

    Raises:
        RunError: a file is missing or is not the one that was committed.
    """
    config = paths.read_json(folder / "config.json")
    records = _counting(read_raw(folder / "raw.jsonl")[0])
    predictions = folder / "predictions.parquet"
    predicted = read_parquet(predictions) if predictions.is_file() else []
    cells = [_cell_summary(folder, cell, records, predicted, config["parameters"]) for cell in config["cells"]]
    profile = config["parameters"]["profile"]
    return {
        "schema_version": SUMMARY_VERSION,
        "run_id": config["run_id"],
        "study": config["study"],
        "profile": profile,
        "design_hash": config["design_hash"],
        "note": PROFILES[profile] if profile != "full" else None,
        "cells": cells,
        "best_throughput": _best(cells),
    }


def _counting(records: list[Repetition]) -> dict[str, list[Repetition]]:
    """By cell, the repetitions that count: the finished ones, else the last attempt.

    Raises:
        RunError: a repetition was committed twice.
    """
    last: dict[tuple[str, str, int], Repetition] = {}
    for record in records:
        before = last.get(record.key)
        if before and before.status in FINAL:
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
) -> dict[str, Any]:
    mine = records.get(cell["cell"], [])
    done = {
        where: [r for r in mine if r.pass_ == where and r.status in ("ok", "unstable")]
        for where in ("timing", "memory")
    }
    done["energy"] = done["timing"]  # until there is an energy pass, its lines say why there is no energy
    result: dict[str, Any] = dict(cell) | {"state": cell_state(mine, params)}
    for name, where in MEASURED_IN.items():
        if name in ("accuracy", "logits_sha256"):
            continue
        result |= _over_repetitions(name, done.get(where, []), f"no finished repetition of the {where} pass")
    result["padding_share"] = next((r.padding_share for r in mine if r.padding_share is not None), None)
    rows = [row for row in predicted if row["cell"] == cell["cell"]]
    result |= _accuracy(rows, params["model_source"] == "random")
    iterations = [_timed_ms(folder, record) for record in done["timing"]]
    result["iterations_ms"] = _iterations(iterations) if iterations else None
    for name in ("parent_cores", "foreign_cores", "stolen_cores"):
        known = [value for record in done["timing"] if (value := getattr(record, name)) is not None]
        result[name] = median(known) if known else None
    result["errors"] = [f"{r.pass_} {r.repetition}: {r.status}: {r.error}" for r in mine if r.error]
    result["doubts"] = _doubts(done["timing"], result)
    return result


def _iterations(by_process: list[list[float]]) -> dict[str, Any]:
    """What single iterations say: their distribution over all processes, and where their variance comes from."""
    every = [ms for one in by_process for ms in one]
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
    values = [value for record in records if (value := getattr(record, name)) is not None]
    if not values:
        reasons = [getattr(record, f"{name}_reason") for record in records]
        return {name: None, f"{name}_reason": reasons[0] if reasons else missing}
    interval = t_interval(values) if name in WITH_INTERVAL else None
    return {
        name: median(values),
        f"{name}_range": [min(values), max(values)],
        f"{name}_repetitions": len(values),
        **({f"{name}_interval_95": list(interval)} if interval else {}),
    }


def _accuracy(rows: list[dict[str, Any]], random_weights: bool) -> dict[str, Any]:
    if not rows:
        return {"accuracy": None, "accuracy_reason": "no predictions"}
    fields = classification_fields(rows, random_weights)
    if fields["accuracy"] is not None:
        right = sum(row["label"] == row["predicted"] for row in rows)
        fields |= {"accuracy_n": len(rows), "accuracy_wilson_95": list(wilson_interval(right, len(rows)))}
    return fields


def _timed_ms(folder: Path, record: Repetition) -> list[float]:
    rows = read_parquet(folder / record.iterations_file, record.iterations_sha256)
    return [row["latency_ms"] for row in rows if not row["warmup"]]


def _doubts(timing: list[Repetition], cell: dict[str, Any]) -> list[str]:
    """What a reader must know beside the number."""
    doubts = []
    if 0 < len(timing) < 5:
        doubts.append(f"{len(timing)} repetition{'s' if len(timing) > 1 else ''}: no interval")
    if len({record.logits_sha256 for record in timing}) > 1:
        doubts.append("logits differ between repetitions")
    for name, (least, said) in BUSY.items():
        if (cores := cell[name] or 0) > least:
            doubts.append(said.format(cores))
    if (spread := cell.get("latency_ms_range")) and spread[1] > 1.1 * spread[0]:
        doubts.append(f"repetitions differ by {spread[1] / spread[0] - 1:.0%}")
    return doubts


def cell_state(records: list[Repetition], params: dict[str, Any]) -> str:
    """The state of a cell from its repetitions: the worst of them, or pending while some are missing."""
    states = {record.status for record in records}
    for state in WORST_FIRST:
        if state in states:
            return state
    wanted = {"timing": params["repetitions"], "memory": params["memory_repetitions"]}
    missing = any(sum(r.pass_ == where for r in records) < wanted[where] for where in params["passes"])
    return ("running" if records else "pending") if missing else "ok"


def _best(cells: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The cell with the highest throughput at a fixed length (only there is work per sentence the same)."""
    measured = [c for c in cells if c["throughput_samples_per_s"] is not None]
    fixed = [c for c in measured if c["length_policy"] != "longest"] or measured
    if not fixed:
        return None
    shortest = min((c["length_policy"] for c in fixed), key=lambda policy: (len(policy), policy))
    best = max((c for c in fixed if c["length_policy"] == shortest), key=lambda c: c["throughput_samples_per_s"])
    return {name: best[name] for name in ("cell", "batch_size", "length_policy", "variant", "throughput_samples_per_s")}


def verify(folder: Path) -> list[str]:
    """Computes everything derived again from the raw files; says each difference (none: the run can be believed)."""
    problems: list[str] = []
    if not (folder / "raw.jsonl").is_file():
        return [f"{folder / 'raw.jsonl'} is missing: nothing can be computed again"]
    try:
        for record in read_raw(folder / "raw.jsonl")[0]:
            problems += _verify_record(folder, record)
        again = summarise(folder)
        if (folder / "summary.json").is_file():
            told = paths.read_json(folder / "summary.json")
            problems += differences(told, _as_told(again, told), "summary.json")
        else:
            problems.append(f"{folder / 'summary.json'} is missing: the run is unfinished")
    except RunError as error:
        problems.append(str(error))
    return list(dict.fromkeys(problems))  # a damaged file is met by the record and by the summary


def _as_told(again: Any, told: Any) -> Any:
    """A summary as an earlier version would have told it: fields that came later are left out, in its own version."""
    if told.get("schema_version") == SUMMARY_VERSION:
        return again
    return _only_known(again, told) | {"schema_version": told.get("schema_version")}


def _only_known(again: Any, told: Any) -> Any:
    if isinstance(again, dict) and isinstance(told, dict):
        return {key: _only_known(value, told[key]) for key, value in again.items() if key in told}
    if isinstance(again, list) and isinstance(told, list) and len(again) == len(told):
        return [_only_known(*pair) for pair in zip(again, told, strict=True)]
    return again


def _verify_record(folder: Path, record: Repetition) -> list[str]:
    if not record.iterations_file:
        return []
    try:
        fields = timing_fields(read_parquet(folder / record.iterations_file, record.iterations_sha256))
    except RunError as error:
        return [str(error)]
    where = f"raw.jsonl, {record.cell} {record.pass_} {record.repetition}"
    told = {name: getattr(record, name) for name in fields}
    problems = differences(told, fields, where)
    return problems + _verify_predictions(folder / "predictions.parquet", record, where)


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
    """Where two JSON values differ: path, what was told, what was computed again."""
    if isinstance(told, dict) and isinstance(again, dict):
        keys = sorted(told.keys() | again.keys())
        return [d for key in keys for d in differences(told.get(key), again.get(key), f"{where}: {key}")]
    if isinstance(told, list) and isinstance(again, list) and len(told) == len(again):
        return [d for i, pair in enumerate(zip(told, again, strict=True)) for d in differences(*pair, f"{where}[{i}]")]
    return [] if told == again else [f"{where} says {told!r}, computed again it is {again!r}"]
