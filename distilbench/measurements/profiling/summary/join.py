"""summary.json of a profile: per cell medians over its processes, what bounds it, and the doubts."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from distilbench import paths
from distilbench.measurements.profiling.records import ProfileRecord
from distilbench.measurements.profiling.summary import verdict
from distilbench.runs.measurement import summary_head
from distilbench.runs.rawfiles import read_raw
from distilbench.runs.states import FINAL, MEASURED
from distilbench.stats import median_interval

SUMMARY_VERSION = 1
NUMBERS = (
    "forward_ms", "profiled_ms", "slow_down", "null_us", "operator_calls", "gpu_busy_ms", "layers_ratio",
    "outside_share", "peak_MiB", "peak_rss_MiB", "load_s",
)  # fmt: skip
SHARES = ("dispatch_share", "memory_share", "compute_share")
AGREE = 0.05  # the layers together against a whole forward
FASTER = 0.9  # of a plain forward: a profiler costs time, so that a shorter one was measured in other conditions


def summarise(folder: Path) -> dict[str, Any]:
    """summary.json of a run, a pure function of its other files."""
    config = paths.read_json(folder / "config.json")
    records = read_raw(folder / "profile.jsonl", ProfileRecord)[0]
    ceilings = paths.read_json(file) if (file := folder / "ceilings.json").is_file() else None
    model = paths.read_json(file) if (file := folder / "model.json").is_file() else None
    params = config["parameters"]
    return summary_head(config, SUMMARY_VERSION) | {
        "model": _model(model) if model else None,
        "ceilings": ceilings,
        "cells": [_cell(cell, records, params["repetitions"], ceilings) for cell in config["cells"]],
    }


def _model(model: dict[str, Any]) -> dict[str, Any]:
    """How large it is, as `model.json` says."""
    disk = model["disk_bytes"]
    return {
        "parameters_M": model["parameters"] / 1e6,
        "disk_MiB": disk / 2**20 if disk is not None else None,
        "disk_MiB_reason": None if disk is not None else "random weights are in no file",
        "memory_MiB": model["memory_bytes"] / 2**20,
    }


def _cell(
    cell: dict[str, Any], records: list[ProfileRecord], asked: int, ceilings: dict[str, Any] | None
) -> dict[str, Any]:
    tried = [record for record in records if record.cell == cell["cell"]]
    mine = sorted((record for record in tried if record.status in MEASURED), key=lambda record: record.repetition)
    found = cell | {"state": _state(tried, mine, asked), "repetitions": len(mine)}
    if not mine:
        return found | {"doubts": []}
    numbers = {name: _median(getattr(record, name) for record in mine) for name in NUMBERS}
    forwards = [record.forward_ms for record in mine]
    interval = median_interval(forwards)
    shown = mine[0]
    tables = shown.model_dump(include={"operators", "layers", "request", "peak_by", "utilisation"})
    judged = _verdict(mine, ceilings)
    return (
        found
        | numbers
        | {"forward_ms_range": [min(forwards), max(forwards)], "forward_ms_interval": list(interval or []) or None}
        | tables
        | {"tables_of": shown.repetition, "files": sorted(shown.files_sha256)}
        | judged
        | {"doubts": _doubts(mine, numbers, judged)}
    )


def _state(tried: list[ProfileRecord], mine: list[ProfileRecord], asked: int) -> str:
    if len(mine) == asked:
        return "unstable" if any(record.status == "unstable" for record in mine) else "ok"
    bad = [record.status for record in tried if record.status not in MEASURED]
    final = [status for status in bad if status in FINAL]
    return (final or bad)[-1] if bad else "pending"


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _verdict(mine: list[ProfileRecord], ceilings: dict[str, Any] | None) -> dict[str, Any]:
    """The verdict of the process that stands in the middle by its dispatch, and what the others say."""
    judged = []
    for record in mine:
        dtype = "bfloat16" if record.variant == "autocast" else record.dtype
        rows = [row.model_dump() for row in record.operators]
        judged.append(verdict.verdict(record.forward_ms, rows, ceilings, dtype))
    ordered = sorted(judged, key=lambda found: found["dispatch_share"])
    middle = ordered[len(ordered) // 2]
    return middle | {"evidence": verdict.evidence(middle), "verdicts": [found["verdict"] for found in judged]}


def _doubts(mine: list[ProfileRecord], numbers: dict[str, Any], judged: dict[str, Any]) -> list[str]:
    said = verdict.doubts(judged)
    if len({*judged["verdicts"]} - {None}) > 1:
        said.append(f"its processes differ in their verdict: {', '.join(map(str, judged['verdicts']))}")
    ratio = numbers["layers_ratio"]
    if ratio is not None and abs(ratio - 1) > AGREE:
        said.append(f"the layers together are {ratio:.1%} of a forward: more than {AGREE:.0%} apart")
    if (slow_down := numbers["slow_down"]) is not None and slow_down < FASTER:
        said.append(f"a profiled forward took {slow_down:.2f} times the time of one that nobody profiled: disturbed")
    if unstable := sum(record.status == "unstable" for record in mine):
        said.append(f"{unstable} of {len(mine)} processes had not settled when their warm-up was cut off")
    return said
