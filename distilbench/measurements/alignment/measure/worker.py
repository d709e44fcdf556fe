"""The process that times one operation at all dimensions."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distilbench.collectors import memory
from distilbench.collectors import threads as collectors_threads
from distilbench.collectors.latency import clock_for
from distilbench.harness.handover import CellSpec
from distilbench.harness.outcome import leave_record
from distilbench.machine.device import gpu_identity, select
from distilbench.measurements.alignment.records import ATTENTION, ITERATIONS, AlignmentRecord, file_name
from distilbench.measurements.alignment.summary import derive
from distilbench.measurements.sweep.measure import worker as sweep
from distilbench.runs.rawfiles import write_parquet

Row = dict[str, Any]
Work = Callable[[], torch.Tensor]


def main(file: Path) -> int:
    """Measures; 0 when a record was written (see `outcome.leave_record`)."""
    return leave_record(file, CellSpec.load(file), AlignmentRecord, measure)


def measure(job: CellSpec) -> dict[str, Any]:
    """The fields of the record."""
    identity, protocol = job.identity, job.protocol
    cores = sweep.take_cores(protocol)
    device = select(job.model["device"])
    threads = collectors_threads.proof(torch, protocol["num_threads"], len(cores), device.type == "cpu")
    work = {size: operation(identity["operation"], size, protocol, device) for size in protocol["dimensions"]}
    rows = rounds(work, protocol, identity["repetition"], device)
    name = file_name(identity["cell"], identity["repetition"])
    sha256 = write_parquet(Path(job.run) / name, rows, ITERATIONS)
    return derive.fields_of(rows) | {
        "device": device.type,
        "dtype": protocol["dtype"],
        "peak_rss_MiB": memory.peak_rss_MiB(),
        "files_sha256": {name: sha256},
        "num_threads": torch.get_num_threads(),
        "affinity": cores,
        "proof": gpu_identity(device),
        **threads,
    }


def operation(name: str, size: int, protocol: Row, device: torch.device) -> Work:
    """The operation at one dimension, on tensors of its own.

    Shapes: down (tokens, hidden) x (hidden, size); up (tokens, size) x (size, width), both with weights stored as a
    linear layer stores them, (columns, rows); attention (1, heads, tokens, size), causal.
    """
    generator = torch.Generator().manual_seed(protocol["seed"])
    dtype = getattr(torch, protocol["dtype"])

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    if name == ATTENTION:
        q, k, v = (numbers(1, protocol["heads"], protocol["tokens"], size) for _ in range(3))
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    rows, columns = (protocol["hidden"], size) if name == "down" else (size, protocol["width"])
    x, weight = numbers(protocol["tokens"], rows), numbers(columns, rows)
    return lambda: torch.nn.functional.linear(x, weight)


@torch.inference_mode()
def rounds(work: dict[int, Work], protocol: Row, repetition: int, device: torch.device) -> list[Row]:
    """All rounds, warm-up first; in each every dimension once, in an order of its own.

    A dimension that always followed the same other one would find its caches as that one left them.
    """
    order, clock, rows = random.Random(protocol["seed"] + repetition), clock_for(device), []
    for number in range(protocol["warmup"] + protocol["measured"]):
        for size in order.sample(list(work), len(work)):
            host_ms, device_ms, _ = clock.time(work[size])
            rows.append(
                {"round": number, "warmup": number < protocol["warmup"], "dimension": size, "latency_ms": host_ms,
                 "latency_device_ms": device_ms}
            )  # fmt: skip
    return rows
