"""Profiles of batch sizes that nobody measured: what deviates in them, and why, is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from distilbench.anomaly.records import BatchProfile

SIZES = (*range(1, 17), 32, 64, 128)
FIXED_MS, PER_SAMPLE_MS = 8.0, 2.5
#: Operators of an invented model: (fixed ms, ms per sample) of each, which add up to a forward less its dispatch.
OPERATORS = {"aten::addmm": (1.0, 1.8), "aten::gelu": (0.5, 0.4), "aten::layer_norm": (0.5, 0.3)}


def truth(size: int) -> float:
    """The latency in ms that linear scaling has."""
    return FIXED_MS + PER_SAMPLE_MS * size


def invented(
    factors: dict[int, float] | None = None,
    noise: float = 0.005,
    rounds: int = 10,
    seed: int = 7,
    sizes: tuple[int, ...] = SIZES,
    cause: str | None = "aten::addmm",
    **fields: Any,
) -> BatchProfile:
    """A file in which each process has that relative noise.

    Args:
        factors: by batch size, what its latency is multiplied with.
        cause: the operator that takes what a factor adds; None: none does; "": there are no operators.
        fields: of the file, in place of those of a full run on fresh processes.
    """
    rng, factors = np.random.default_rng(seed), factors or {}
    said = {
        "run_id": "20261127T120000Z-cpu-0000beef", "study": "batches", "profile": "full", "start": "fresh",
        "created": "2026-11-27T12:00:00Z", "machine": "an invented machine", "device": "cpu", "num_threads": 2,
        "model": "imagined", "model_source": "random", "software": {"torch": "2.13.0"},
    }  # fmt: skip
    rows = [_size(size, factors.get(size, 1.0), noise, rounds, rng, cause) for size in sizes]
    return BatchProfile.model_validate(said | {"sizes": rows} | fields)


def _size(size: int, factor: float, noise: float, rounds: int, rng: Any, cause: str | None) -> dict[str, Any]:
    times = truth(size) * factor * np.exp(noise * rng.standard_normal(rounds))
    processes = [{"repetition": i, "latency_ms": float(ms)} for i, ms in enumerate(times)]
    row = {"batch_size": size, "variant": "sdpa", "dtype": "float32", "length_policy": "fixed-32", "state": "ok"}
    row |= {"processes": processes, "threads_used": 1.0 if factor != 1 else 2.0}
    if cause == "":
        return row | {"profiled_reason": "not asked for"}
    return row | {"profiled": _profiled(size, (factor - 1) * truth(size), noise, rng, cause)}


def _profiled(size: int, added_ms: float, noise: float, rng: Any, cause: str | None) -> dict[str, Any]:
    """Five profiled processes; the profiler makes a forward a fifth longer, by the same for each size."""
    rounds = 5
    operators = []
    for name, (fixed, per_sample) in OPERATORS.items():
        ms = fixed + per_sample * size + (added_ms if name == cause else 0.0)
        shapes = [{"dims": [[32 * size, 768], [768, 3072]], "calls": 6.0, "ms": ms}]
        kernels = [{"kernel": "sgemm_large" if added_ms and name == cause else "sgemm_small", "calls": 6.0, "ms": ms}]
        times = (ms * np.exp(noise * rng.standard_normal(rounds))).tolist()
        row = {"operator": name, "calls": 6.0, "ms": times, "shapes": shapes}
        operators.append(row | ({"kernels": kernels} if name == "aten::addmm" else {}))
    forward = ((truth(size) + added_ms) * np.exp(noise * rng.standard_normal(rounds))).tolist()
    profiled = [ms + 0.2 * FIXED_MS for ms in forward]
    return {
        "repetitions": list(range(rounds)), "forward_ms": forward, "profiled_ms": profiled, "operators": operators
    }  # fmt: skip
