"""The roofline: what this machine could do at best, measured, and what a forward needs at least, counted.

Williams, Waterman & Patterson (2009), "Roofline: an insightful visual performance model", CACM 52(4).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distilbench import paths
from distilbench.collectors import threads
from distilbench.machine.device import DTYPES, select, synchronize

#: (rows, inner, columns) of the products. A CPU: a square one, and the two of a feed-forward layer over 2,048 tokens. A
#: GPU does those in the time of a launch, so its product is one that takes a millisecond or more.
SHAPES = {"cpu": ((1024, 1024, 1024), (2048, 768, 3072), (2048, 3072, 768)), "cuda": ((8192, 8192, 8192),)}
LARGE_BYTES = 512 * 2**20  # larger than caches; 128 MiB would fit into the L3 of some servers


def main(job_file: Path) -> int:
    """Measures the ceilings that the job asks for, and writes them beside it."""
    job = paths.read_json(job_file)
    torch.set_num_threads(job["num_threads"])
    device = select(job["device"])
    if device.type == "cpu" and threads.proven(torch, job["num_threads"], job_file):
        return 1  # rates of fewer threads are no ceilings of those that the sweep has
    paths.write_json(job_file.with_suffix(".result.json"), ceilings(device, job["dtypes"], job["seconds"]))
    return 0


def ceilings(device: torch.device, dtypes: list[str], seconds: float) -> dict[str, Any]:
    """Rates in FLOP/s by dtype, and the bandwidth of memory in B/s, reading or copying: the best of all tries."""
    rates = {dtype: _matrix_rate(device, DTYPES[dtype], seconds) for dtype in dtypes}
    return {"matrix_flops_per_s": rates, "memory_bytes_per_s": _memory_rate(device, seconds)}


def _matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    rates = []
    shapes = SHAPES[device.type]
    for rows, inner, columns in shapes:
        a = torch.randn(rows, inner, device=device).to(dtype)
        b = torch.randn(inner, columns, device=device).to(dtype)
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        best_s = _fastest(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, seconds / len(shapes))
        rates.append(2 * rows * inner * columns / best_s)
    return max(rates)


def _memory_rate(device: torch.device, seconds: float) -> float:
    """The faster of copying (reading and writing counted) and adding up, which only reads, as a forward does."""
    source = torch.ones(LARGE_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copying_s = _fastest(lambda: target.copy_(source), device, seconds / 2)
    reading_s = _fastest(lambda: source.sum(), device, seconds / 2)
    return max(2 / copying_s, 1 / reading_s) * LARGE_BYTES


def _fastest(work: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Seconds of the fastest of many runs, three at least."""
    work()  # first touch of memory, and the choice of a kernel, belong to no rate
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < deadline:
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)
