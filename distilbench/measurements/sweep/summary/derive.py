"""What a record derives from its repetition's readings: the worker writes it, and `verify` computes it again."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import numpy as np

from distilbench import paths
from distilbench.errors import ImplausibleError
from distilbench.stats import converged, half_width

NO_QUEUE = "on a CPU nothing queues: samples/s of forwards one after the other is the steady state"
NO_REQUESTS = "no requests were timed: the run has no texts"
NO_DEVICE_CLOCK = "a CPU has no clock of its own: on this device the host's time is the time of the forward"


def timing_fields(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A record's timing numbers from its iterations (rows of the parquet file).

    Raises:
        ImplausibleError: a time in them is none.
    """
    _require_times(rows)
    forwards = of_kind(rows, "forward")
    timed = [row for row in forwards if not row["warmup"]]
    total_ms, samples = math.fsum(row["latency_ms"] for row in timed), sum(row["samples"] for row in timed)
    device_ms = [row["latency_device_ms"] for row in timed]
    on_device = device_ms[0] is not None
    faults = [count for row in timed if (count := row.get("page_faults")) is not None]
    cycles: dict[int, list[float]] = {}
    for row in timed:
        cycles.setdefault(row["cycle"], []).append(row["latency_ms"])
    return {
        "n_warmup": len(forwards) - len(timed),
        "n_iterations": len(timed),
        "n_cycles": len(cycles),
        "latency_ms": median(row["latency_ms"] for row in timed),
        "latency_device_ms": median(device_ms) if on_device else None,
        "latency_device_ms_reason": None if on_device else NO_DEVICE_CLOCK,
        "latency_per_sample_ms": total_ms / samples,
        "throughput_samples_per_s": samples / total_ms * 1e3,
        "median_half_width": half_width([median(times) for times in cycles.values()]),
        "page_faults_per_iteration": math.fsum(faults) / len(timed) if faults else None,
        **request_fields(of_kind(rows, "request")),
        **_steady_fields(of_kind(rows, "steady"), on_device),
    }


def _require_times(rows: list[dict[str, Any]]) -> None:
    """Nothing takes no time, less, or one that is not finite; a part of a request may be too short for the clock."""
    names = ("latency_device_ms", "tokenise_ms", "transfer_ms", "postprocess_ms")
    for row in rows:
        parts = [ms for name in names if (ms := row.get(name)) is not None]
        if not (0 < row["latency_ms"] < math.inf and all(0 <= ms < math.inf for ms in parts)):
            where = f"cycle {row['cycle']}, batch {row['batch']}"
            raise ImplausibleError(f"{where}: {row['latency_ms']} ms, in parts {parts} ms, is no time of a forward")


def warmup_of(rows: list[dict[str, Any]], tested: bool) -> dict[str, Any]:
    """A record's `warmup` from its iterations (`records.Warmup` as plain data).

    Args:
        rows: of the parquet file.
        tested: whether a proof was asked for.
    """
    cycles: dict[int, list[float]] = {}
    for row in of_kind(rows, "forward"):
        if row["warmup"]:
            cycles.setdefault(row["cycle"], []).append(row["latency_ms"])
    seconds = 0.0
    for times in cycles.values():
        seconds += sum(times) / 1e3
    return {"cycles": len(cycles), "seconds": seconds, "settled": converged(list(cycles.values())) if tested else None}


def of_kind(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Files of the first version hold forwards only, and do not say so."""
    return [row for row in rows if (row.get("kind") or "forward") == kind]


def request_fields(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The parts of a request, medians over the requests of a cycle."""
    if not rows:
        return {"latency_request_ms": None, "latency_request_ms_reason": NO_REQUESTS, "request": None}
    parts = {name: [row[name] for row in rows] for name in ("tokenise_ms", "transfer_ms", "postprocess_ms")}
    parts["forward_ms"] = [row["latency_ms"] for row in rows]
    whole = [math.fsum(values) for values in zip(*parts.values(), strict=True)]
    split = {name: median(values) for name, values in parts.items()}
    return {"latency_request_ms": median(whole), "latency_request_ms_reason": None, "request": {"n": len(rows)} | split}


def _steady_fields(rows: list[dict[str, Any]], on_device: bool) -> dict[str, Any]:
    name = "throughput_steady_samples_per_s"
    if not rows:
        return {name: None, f"{name}_reason": "no cycle without fences was timed" if on_device else NO_QUEUE}
    rate = sum(row["samples"] for row in rows) / math.fsum(row["latency_ms"] for row in rows) * 1e3
    return {name: rate, f"{name}_reason": None}


def energy_fields(found: dict[str, Any], source: str) -> dict[str, Any]:
    """A record's joules from its windows (`records.Energy` as plain data) and the source to report.

    Windows that are invalid for that source count nowhere. Net energy is gross energy less the mean of both idle
    baselines over the same time; without one of them there is none.
    """
    windows = [window for window in found["windows"] if source in window["joules"]]
    gross = [window["joules"][source] for window in windows]
    idle_W = [found[name][source] for name in ("idle_before_W", "idle_after_W") if source in found[name]]
    seconds, samples = math.fsum(w["seconds"] for w in windows), sum(w["samples"] for w in windows)
    reason = "a given power knows no idle" if source == "modelled" else None
    if len(idle_W) < 2:
        reason = f"the baseline at rest is invalid: {found['idle_invalid'].get(source)}"
    return {
        "energy_J": math.fsum(gross) / len(gross),
        "energy_per_sample_J": math.fsum(gross) / samples,
        "energy_net_per_sample_J": None if reason else (math.fsum(gross) - sum(idle_W) / 2 * seconds) / samples,
        "energy_net_per_sample_J_reason": reason,
    }


def classification_fields(rows: list[dict[str, Any]], random_weights: bool) -> dict[str, Any]:
    """A record's accuracy and logits hash from its predictions (rows of predictions.parquet)."""
    logits = np.array([row["logits"] for row in rows], dtype=np.float32)
    right = sum(row["label"] == row["predicted"] for row in rows)
    reason = not_finite(rows) or ("random weights classify nothing" if random_weights else None)
    return {
        "logits_sha256": paths.sha256_bytes(logits.tobytes()),
        "accuracy": None if reason else right / len(rows),
        "accuracy_reason": reason,
    }


def not_finite(predicted: list[dict[str, Any]]) -> str | None:
    """How many predictions come of no class, since a logit is NaN or infinite; None: none."""
    bad = sum(not all(map(math.isfinite, row["logits"])) for row in predicted)
    return f"the logits of {bad} of {len(predicted)} sentences are NaN or infinite" if bad else None
