"""The process that profiles one cell: times without the profiler first, then the profiler's sessions."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from distilbench import paths
from distilbench.collectors import memory, nvml
from distilbench.collectors.telemetry import Telemetry
from distilbench.errors import ImplausibleError
from distilbench.harness.outcome import leave_record
from distilbench.machine.device import gpu_identity, select, synchronize
from distilbench.measurements.profiling.measure import events, layers, sessions, trace
from distilbench.measurements.profiling.records import (
    FOLDER,
    FORWARDS,
    LAYERS,
    MEMORY,
    SAMPLES,
    SNAPSHOT,
    STACKS,
    TRACE,
    ProfileRecord,
)
from distilbench.measurements.profiling.summary import derive
from distilbench.measurements.sweep.measure import worker as sweep
from distilbench.measurements.sweep.measure.spec import WorkerSpec
from distilbench.measurements.sweep.measure.timing import Timing
from distilbench.runs.rawfiles import write_parquet
from distilbench.variants import registry

SAMPLE_S = 0.1
STACK_STEPS = sessions.Schedule(wait=0, warmup=1, active=2)


def main(file: Path) -> int:
    """Measures; 0 when a record was written (see `outcome.leave_record`)."""
    job = WorkerSpec(**json.loads(file.read_text(encoding="utf-8")))
    return leave_record(file, job, ProfileRecord, measure)


def measure(job: WorkerSpec) -> dict[str, Any]:
    """One repetition in this process: the fields of its record.

    What is timed without a profiler comes first: once it has run, its buffers and hooks may stay behind.
    """
    protocol, cores = job.protocol, sweep.take_cores(job.protocol)
    threads = sweep.threads_used(job, cores)
    device = select(job.model["device"])
    work, identity = sweep.workload(job, device), gpu_identity(device)
    gpu, no_gpu = nvml.gpu_of(identity)
    variant = registry.named(job.identity["variant"])
    loaded = variant.load(**job.model)
    with variant.watch(loaded) as proof:
        logits = loaded.forward(*work.tensors[0])
    sweep.require_finite(logits, loaded.info.dtype)
    timing = Timing(protocol, loaded, work.tensors, device, Telemetry(gpu))
    warmup = timing.warm_up()
    by_layer = in_turn(timing, loaded.module, protocol["timed_forwards"])
    if job.tokenizer:
        timing.requests(*sweep.request_inputs(job, work))
    samples = sampled(timing, protocol["utilisation_s"], gpu)
    files = Files(job)
    files.parquet("forwards", forward_rows(timing.rows), FORWARDS)
    files.parquet("layers", by_layer, LAYERS)
    files.parquet("samples", samples, SAMPLES)
    found, snapshot_reason = profiled(job, timing, device, files)
    fields = derive.fields_of(found, forward_rows(timing.rows), by_layer, samples)
    if fields["utilisation"]:
        fields["utilisation"]["gpu_reason"] = no_gpu
    return fields | {
        "status": "unstable" if warmup["settled"] is False else "ok",
        "warmup": warmup,
        "files_sha256": files.sha256,
        "snapshot_reason": snapshot_reason,
        "inputs_sha256": work.sha256,
        "padding_share": work.padding_share,
        "model_sha256": loaded.info.sha256,
        "load_s": loaded.info.load_s,
        "peak_rss_MiB": memory.peak_rss_MiB(),
        "num_threads": torch.get_num_threads(),
        "affinity": cores,
        "proof": proof | identity,
        **threads,
    }


class Files:
    """The files of this record, with their hashes."""

    def __init__(self, job: WorkerSpec) -> None:
        self.run, self.stem = Path(job.run), job.protocol["stem"]
        self.sha256: dict[str, str] = {}
        (self.run / FOLDER).mkdir(exist_ok=True)

    def path(self, ending: str) -> Path:
        """Where a file goes."""
        return self.run / FOLDER / f"{self.stem}{ending}"

    def add(self, ending: str) -> None:
        """Takes a file that is written."""
        self.sha256[f"{FOLDER}/{self.stem}{ending}"] = paths.sha256_file(self.path(ending))

    def parquet(self, name: str, rows: list[dict[str, Any]], schema: Any) -> None:
        """Writes rows."""
        write_parquet(self.path(f"{name}.parquet"), rows, schema)
        self.add(f"{name}.parquet")


def in_turn(timing: Timing, module: torch.nn.Module, count: int) -> list[dict[str, Any]]:
    """Forwards without and with a clock at each layer, one after the other: both see the same state of the machine.

    The plain ones go into `timing.rows`; returns rows of the layers.
    """
    marks, rows = layers.marks_for(timing.device), []
    cycle = timing.rows[-1]["cycle"] + 1
    layers.timed(module, timing.steps[0], marks)  # not kept: the first call with hooks takes another path in torch
    for number in range(count):
        batch = number % len(timing.steps)
        host_ms, device_ms, _ = timing.clock.time(timing.steps[batch])
        plain = {"kind": "plain", "cycle": cycle + number // len(timing.steps), "batch": batch}
        timing.rows.append(plain | {"latency_ms": host_ms, "latency_device_ms": device_ms})
        spent = layers.timed(module, timing.steps[batch], marks)
        rows += [{"forward": number, "layer": name, "ms": ms} for name, ms in spent.items()]
    return rows


def forward_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the forwards file: those of the warm-up say so."""
    return [row | {"kind": "warmup"} if row["kind"] == "forward" else row for row in rows]


def sampled(timing: Timing, seconds: float, gpu: nvml.Gpu | None) -> list[dict[str, Any]]:
    """Use of the machine over forwards one after the other, read between two of them.

    No thread samples: it would take the interpreter's lock from the forwards, and a core from them.
    """
    rows: list[dict[str, Any]] = []
    begin = last = time.monotonic()
    spent = time.process_time()  # of all threads
    for step in itertools.cycle(timing.steps):
        if last - begin >= seconds:
            return rows
        step()
        if (now := time.monotonic()) - last < SAMPLE_S:
            continue
        used = time.process_time()
        rows.append({"at_s": now - begin, "cpu_cores": (used - spent) / (now - last)} | gpu_use(gpu))
        last, spent = now, used
    raise ImplausibleError("there is no batch")


def gpu_use(gpu: nvml.Gpu | None) -> dict[str, float | None]:
    """Shares of its last sampling period in which a kernel ran, and in which memory was used; None where not told."""
    if gpu:
        try:
            rates = gpu.nvml.nvmlDeviceGetUtilizationRates(gpu.handle)
            return {"gpu_share": rates.gpu / 100, "gpu_memory_share": rates.memory / 100}
        except gpu.nvml.NVMLError:  # a part of a GPU (MIG) has no such rates
            pass
    return {"gpu_share": None, "gpu_memory_share": None}


def profiled(job: WorkerSpec, timing: Timing, device: torch.device, files: Files) -> tuple[trace.Trace, str | None]:
    """The sessions: (the trace of times and memory, why there is no snapshot of the GPU's memory)."""
    names = ("profiler_wait", "profiler_warmup", "profiler_active")
    schedule = sessions.Schedule(*(job.protocol[name] for name in names))
    sessions.session(files.path(TRACE), schedule, endless(timing), device, sessions.OPERATORS)
    rows = events.compact(trace.load(files.path(TRACE)))
    files.parquet("events", rows, events.EVENTS)
    found = trace.parse(events.expanded(rows))
    files.add(TRACE)
    files.parquet("memory", derive.timeline(found), MEMORY)
    with_stacks = Path(job.run) / "work" / "stacks.json"  # not kept: ten times as large, and its times are distorted
    sessions.session(with_stacks, STACK_STEPS, endless(timing), device, sessions.stacks())
    lines = [f"{stack} {us}\n" for stack, us in trace.folded(trace.read(with_stacks))]
    paths.write_atomic(files.path(STACKS), "".join(lines))
    with_stacks.unlink()
    files.add(STACKS)
    reason = sessions.snapshot(files.path(SNAPSHOT), timing.steps[0], device)
    if reason is None:
        files.add(SNAPSHOT)
    synchronize(device)
    return found, reason


def endless(timing: Timing) -> Iterator[partial[Any]]:
    """The batches of the cycle, again and again: no cache answers, and all sessions see the same ones."""
    return itertools.cycle(timing.steps)
