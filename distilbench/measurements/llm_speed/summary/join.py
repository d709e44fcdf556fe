"""summary.json of decoders: per cell its times and its cache, per point what compression changes; and the doubts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilbench import paths
from distilbench.errors import RunError
from distilbench.lowrank.params import BASELINE
from distilbench.measurements.llm_speed.records import LlmRecord, file_name, point_name
from distilbench.runs.measurement import summary_head
from distilbench.runs.rawfiles import read_parquet, read_raw
from distilbench.runs.states import MEASURED
from distilbench.stats import MIN_REPETITIONS, median_interval, paired_ratio_interval, samples_needed

SUMMARY_VERSION = 1
Cell = dict[str, Any]
TIMES = ("latency_ms", "ttft_ms", "tpot_ms")


def summarise(folder: Path) -> dict[str, Any]:
    """summary.json of a run, a pure function of its other files."""
    config = paths.read_json(folder / "config.json")
    records = read_raw(folder / "llm_speed.jsonl", LlmRecord)[0]
    wanted, profile = config["parameters"]["repetitions"], config["parameters"]["profile"]
    measured = {record.key: record for record in records if record.status in MEASURED}
    of_cell = {cell["cell"]: _of(measured, cell["cell"]) for cell in config["cells"]}
    cells = []
    for cell in config["cells"]:
        own, tried = of_cell[cell["cell"]], [record for record in records if record.cell == cell["cell"]]
        state = "ok" if len(own) >= wanted else tried[-1].status if tried else "pending"
        if state in MEASURED and len(own) < wanted:
            state = "pending"  # what is missing was not tried yet
        said = {"repetitions": len(own), **(_numbers(folder, list(own.values())) if own else {})}
        if cell["variant"] != BASELINE and BASELINE in config["parameters"]["variants"]:
            base = of_cell[f"{BASELINE}-{point_name(*(cell[name] for name in POINT))}"]
            said |= _against(base, own)
        cells.append(cell | {"state": state} | said)
    for cell in cells:
        cell["doubts"] = _doubts(cell, records, profile)
    compression = folder / "compression.json"
    head = summary_head(config, SUMMARY_VERSION)
    return head | {
        "cells": cells,
        "compression": _kept(paths.read_json(compression)) if compression.is_file() else None,
    }


POINT = ("phase", "batch_size", "context", "new_tokens")
OF_COMPRESSION = ("group_size", "requested", "effective", "block", "search", "retained")


def _kept(compression: dict[str, Any]) -> dict[str, Any]:
    return {name: compression[name] for name in OF_COMPRESSION}


def _of(measured: dict[Any, LlmRecord], cell: str) -> dict[int, LlmRecord]:
    """Its records by repetition."""
    return {number: one for (name, _, number), one in sorted(measured.items()) if name == cell}


def _numbers(folder: Path, records: list[LlmRecord]) -> Cell:
    """Medians over trials, with intervals where there are enough of them; percentiles over all timed iterations."""
    found: Cell = {}
    for name in TIMES:
        values = [value for record in records if (value := getattr(record, name)) is not None]
        stem = name.removesuffix("_ms")
        found[name] = float(np.median(values)) if values else None
        found[f"{stem}_95_ms"] = _pair(median_interval(values)) if values else None
    tokens = records[0].batch_size * (records[0].new_tokens or records[0].context)
    every = [row["latency_ms"] for one in records for row in _timed(folder, one)]
    return found | {
        "tokens_per_s": tokens / found["latency_ms"] * 1e3,
        "latency_mean_ms": float(np.mean(every)),
        "latency_std_ms": float(np.std(every, ddof=1)) if len(every) > 1 else 0.0,
        **{f"latency_p{p}_ms": float(np.percentile(every, p)) for p in (50, 90, 99)},
        "iterations": len(every),
        "p99_supported": len(every) >= samples_needed(99),
        "cached_tokens": records[0].cached_tokens,
        "cache_bytes": records[0].cache_bytes,
        "effective_ratio": records[0].effective_ratio,
        "peak_rss_MiB": max(record.peak_rss_MiB for record in records),
        "peak_cuda_allocated_MiB": _highest(record.peak_cuda_allocated_MiB for record in records),
        "peak_cuda_reserved_MiB": _highest(record.peak_cuda_reserved_MiB for record in records),
    }


def _timed(folder: Path, record: LlmRecord) -> list[dict[str, Any]]:
    file = folder / file_name(record.cell, record.repetition)
    if not (found := [row for row in read_parquet(file) if not row["warmup"]]):
        raise RunError(f"{file}: no iteration was timed")
    return found


def _highest(values: Any) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _pair(ends: Sequence[float] | None) -> list[float] | None:
    return list(ends) if ends else None


def _against(base: dict[int, LlmRecord], own: dict[int, LlmRecord]) -> Cell:
    """Times and cache over those of the baseline at the same point, over trials side by side."""
    both = sorted(base.keys() & own.keys())
    if not both:
        return {}
    found: Cell = {}
    for name in TIMES:
        pairs = [(getattr(base[number], name), getattr(own[number], name)) for number in both]
        if pairs[0][0] is None:
            continue
        of_base, of_own = map(np.array, zip(*pairs, strict=True))
        stem, ratios = name.removesuffix("_ms"), of_own / of_base
        found[f"{stem}_ratio"] = float(np.median(ratios))
        found[f"{stem}_ratio_range"] = [float(ratios.min()), float(ratios.max())]
        found[f"{stem}_ratio_95"] = _pair(paired_ratio_interval(of_base, of_own))
    first = both[0]
    return found | {"cache_ratio": own[first].cache_bytes / base[first].cache_bytes}


def _doubts(cell: Cell, records: list[LlmRecord], profile: str) -> list[str]:
    said = []
    if cell["state"] == "oom":
        said.append("dropped, since it does not fit into memory")
    caches = {(one.cached_tokens, one.cache_bytes) for one in records if one.cell == cell["cell"] and one.cache_bytes}
    if len(caches) > 1:
        said.append("trials ended with caches of different sizes")
    texts = {one.tokens_sha256 for one in records if one.cell == cell["cell"] and one.tokens_sha256}
    if len(texts) > 1:
        said.append("trials gave different tokens: the times are those of different texts")
    if profile == "full" and 0 < cell["repetitions"] < MIN_REPETITIONS:
        said.append(f"{cell['repetitions']} trials: too few for an interval; the range is given instead")
    if cell.get("iterations") and not cell["p99_supported"]:
        said.append(f"{cell['iterations']} iterations do not support a p99; {samples_needed(99)} would")
    return said
