"""The worker: a process, fresh or forked, that measures one repetition of one cell, then ends.

    python -m distilbench.harness distilbench.measurements.sweep.measure.worker JOB.json

It reads the job and the prepared inputs, writes the iterations (and predictions) as parquet, and last the record as
JSON beside the job; the parent commits it. It imports nothing that a measurement does not need.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from distilbench.collectors import energy, memory, nvml
from distilbench.collectors import threads as collectors_threads
from distilbench.collectors.telemetry import Telemetry
from distilbench.errors import DeviceError, ImplausibleError
from distilbench.harness import energy_windows
from distilbench.harness.outcome import Unavailable, leave_record
from distilbench.machine import cgroups
from distilbench.machine.device import gpu_identity, select
from distilbench.measurements.sweep.measure.spec import WorkerSpec, predictions_file
from distilbench.measurements.sweep.measure.timing import Timing
from distilbench.measurements.sweep.records import ITERATIONS, PREDICTIONS, Repetition
from distilbench.measurements.sweep.summary.derive import classification_fields, energy_fields, timing_fields, warmup_of
from distilbench.runs.rawfiles import write_parquet
from distilbench.sources import families
from distilbench.sources.batches import (
    batches_sha256,
    cycle_samples,
    load_inputs,
    load_padding,
    make_batches,
    padding_share,
    truncated_shares,
)
from distilbench.sources.models import match_labels
from distilbench.sources.tokenizers import encoder
from distilbench.variants import registry
from distilbench.variants.registry import Executable

UNSEEN_NEIGHBOURS = "whether others compute on the GPU cannot be seen here; its counters would hold what they draw"


def preload() -> None:
    """Imports what `measure` imports when it needs it; computes nothing, since other processes are forked from this."""
    for name in set(registry.MODULES.values()):
        importlib.import_module(name)
    for family in map(families.named, families.supported()):
        _ = family.model_class, family.tokenizer_class
    pa.array([0])  # PyArrow imports pandas for the first one, which each fork would pay for when it writes its rows


def main(job_file: Path) -> int:
    """Measures; 0 when a record was written, 3 when the device's memory did not suffice, 1 on other errors."""
    job = WorkerSpec(**json.loads(job_file.read_text(encoding="utf-8")))
    return leave_record(job_file, job, Repetition, measure)


@dataclass(frozen=True)
class Workload:
    """One cycle of batches.

    Attributes:
        tensors: per batch (input_ids, attention_mask), int64 (batch, length), on the device.
        rows: which sentence stands where, over the whole cycle.
        samples, labels: of all sentences.
        sha256: of all batches.
        padding_share: share of positions that is padding.
        truncated_shares: of distinct sentences that are cut, and of their tokens that are lost.
        rows_of_batches: `rows`, batch by batch.
    """

    tensors: list[tuple[torch.Tensor, torch.Tensor]]
    rows: np.ndarray
    samples: list[str]
    labels: list[int]
    sha256: str
    padding_share: float
    truncated_shares: tuple[float, float]
    rows_of_batches: list[np.ndarray]


def workload(job: WorkerSpec, device: torch.device) -> Workload:
    """The job's cycle, copied to the device."""
    token_ids, samples, labels = load_inputs(Path(job.inputs))
    identity, protocol = job.identity, job.protocol
    # a protocol from before there was the second of them has none
    limits = protocol["samples_per_cycle"], protocol.get("batches_per_cycle")
    cycle = identity["length_policy"], cycle_samples(*limits, identity["batch_size"]), protocol["seed"]
    batches = make_batches(token_ids, identity["batch_size"], *cycle, load_padding(Path(job.inputs)))
    cut = truncated_shares(token_ids, *cycle)
    tensors = [
        (torch.from_numpy(b.input_ids).to(device), torch.from_numpy(b.attention_mask).to(device)) for b in batches
    ]
    rows = [batch.rows for batch in batches]
    return Workload(
        tensors, np.concatenate(rows), samples, labels, batches_sha256(batches), padding_share(batches), cut, rows
    )


def measure(job: WorkerSpec) -> dict[str, Any]:
    """One repetition in this process: the fields of its record."""
    cores = take_cores(job.protocol)
    threads = threads_used(job, cores)
    variant, device = registry.named(job.identity["variant"]), select(job.model["device"])
    work, identity = workload(job, device), gpu_identity(device)
    gpu, no_gpu = nvml.gpu_of(identity)
    phases = memory.Phases(device) if job.identity["pass"] == "memory" else None  # all but the model is there
    loaded = variant.load(**job.model)
    if phases:
        loaded.touch()
    loaded_rss, loaded_cuda = memory.rss_MiB(), memory.cuda_allocated_MiB(device)
    if phases:
        phases.mark("load")
    with variant.watch(loaded) as proof:
        logits = loaded.forward(*work.tensors[0])
    if phases:
        phases.mark("first")
    require_finite(logits, loaded.info.dtype)  # before minutes are spent on it; the timing pass sees all of the cycle
    fields = {
        "inputs_sha256": work.sha256,
        "padding_share": work.padding_share,
        "truncated_share": work.truncated_shares[0],
        "truncated_tokens_share": work.truncated_shares[1],
        "model_sha256": loaded.info.sha256,
        "load_s": loaded.info.load_s,
        "num_threads": torch.get_num_threads(),
        "affinity": cores,
        "proof": proof | identity,
        **threads,
    } | cycle_cost(loaded, work.tensors)
    if phases:
        return fields | _memory(loaded, work, phases, (loaded_rss, loaded_cuda), gpu, no_gpu)
    if job.identity["pass"] == "energy":
        return fields | _energy(job, loaded, work, device, gpu, no_gpu)
    return fields | _timing(job, loaded, work, device, gpu)


def require_finite(logits: torch.Tensor, dtype: str) -> None:
    """A logit that is NaN or infinite belongs to no class, and what was computed on the way to it is no forward.

    Args:
        logits: (sentences, labels).
        dtype: of the weights.

    Raises:
        ImplausibleError: there is one; how many sentences have one is said.
    """
    if not (bad := int((~logits.isfinite()).any(dim=-1).sum())):
        return
    why = "are all weights of the checkpoint finite?"
    if dtype == "float16":
        why = "numbers above 65,504 overflow in float16: choose dtype float32 or bfloat16"
    raise ImplausibleError(f"the logits of {bad} of {len(logits)} sentences are NaN or infinite ({why})")


def take_cores(protocol: dict[str, Any]) -> list[int]:
    """Sets cores and threads as the parent says, and checks that they are taken.

    Raises:
        DeviceError: the system gives others.
    """
    wanted, threads = protocol["affinity"], protocol["num_threads"]
    try:
        os.sched_setaffinity(0, wanted)
    except OSError as error:
        raise DeviceError(f"cores {wanted} cannot be used: {error.strerror}") from error
    torch.set_num_threads(threads)
    got = sorted(os.sched_getaffinity(0)), torch.get_num_threads()
    if got != (wanted, threads):
        raise DeviceError(f"asked for cores {wanted} and {threads} threads, got cores {got[0]} and {got[1]} threads")
    return got[0]


def threads_used(job: WorkerSpec, cores: list[int]) -> dict[str, Any]:
    """Measures that as many threads compute as were asked for, before minutes are spent on it.

    Raises:
        ImplausibleError: on a CPU, where all is computed by them, they do not.
    """
    if job.identity["pass"] == "memory":
        return {"threads_used_reason": collectors_threads.NOT_IN_MEMORY_PASS}
    on_cpu = select(job.model["device"]).type == "cpu"
    return collectors_threads.proof(torch, job.protocol["num_threads"], len(cores), on_cpu)


def _memory(
    loaded: Executable,
    work: Workload,
    phases: memory.Phases,
    loaded_MiB: tuple[float, float | None],
    gpu: nvml.Gpu | None,
    no_gpu: str | None,
) -> dict[str, Any]:
    """Peaks by phase: load, first forward, one whole cycle; nothing is timed here."""
    for pair in work.tensors:
        loaded.forward(*pair)
    phases.mark("steady")
    fields: dict[str, Any] = {"peak_rss_MiB": phases.highest_rss_MiB, "loaded_rss_MiB": loaded_MiB[0]}
    peaks = phases.highest_cuda_MiB
    for i, name in enumerate(("peak_cuda_allocated_MiB", "peak_cuda_reserved_MiB")):
        fields |= {name: peaks[i]} if peaks else {f"{name}_reason": memory.NO_CUDA}
    return fields | {"memory": memory.split(phases, *loaded_MiB, gpu, no_gpu)}


def _energy(
    job: WorkerSpec, loaded: Executable, work: Workload, device: torch.device, gpu: nvml.Gpu | None, no_gpu: str | None
) -> dict[str, Any]:
    """Joules over windows of whole cycles.

    Raises:
        Unavailable: nothing measures energy here.
    """
    if gpu and gpu.foreign_processes():
        raise Unavailable("other processes compute on the GPU: its counters hold what they draw, too")
    used, why = energy.sources(job.model["device"], gpu, job.protocol["modelled_power_W"], no_gpu)
    if not used:
        raise Unavailable(f"nothing measures energy here: {why}")
    before = cgroups.throttling()
    found = energy_windows.measure(job.protocol, loaded, work.tensors, device, used)
    if gpu and gpu.foreign_processes() is None:
        found["notes"].append(UNSEEN_NEIGHBOURS)
    quota = _quota(before, cgroups.throttling())
    return {"energy": found, "energy_source": used[0].name} | energy_fields(found, used[0].name) | quota


def _timing(
    job: WorkerSpec, loaded: Executable, work: Workload, device: torch.device, gpu: nvml.Gpu | None
) -> dict[str, Any]:
    """Warm-up, timed cycles (the first gives the logits), requests, on a GPU cycles without fences."""
    timing = Timing(job.protocol, loaded, work.tensors, device, Telemetry(gpu))
    timing.warm_up()
    before = cgroups.throttling()
    timing.measure()
    quota = _quota(before, cgroups.throttling())
    logits = torch.cat([part.float().cpu() for part in timing.results])
    require_finite(logits, loaded.info.dtype)
    if job.tokenizer:
        timing.requests(*request_inputs(job, work))
    timing.steady(job.protocol["min_seconds"])
    file = f"iterations/{job.identity['cell']}-{job.identity['repetition']:02d}.parquet"
    warmup = warmup_of(timing.rows, tested=bool(job.protocol["warmup_max_seconds"]))
    fields = timing_fields(timing.rows) | {
        "warmup": warmup,
        "status": "unstable" if warmup["settled"] is False else "ok",
        "iterations_file": file,
        "iterations_sha256": write_parquet(Path(job.run) / file, timing.rows, ITERATIONS),
    }
    return fields | quota | _classification(job, loaded, work, logits)


def _quota(before: dict[str, cgroups.Throttling], after: dict[str, cgroups.Throttling]) -> dict[str, Any]:
    """What a CPU quota did between two readings, or why nothing was counted."""
    if (counted := cgroups.throttled_between(before, after)) is None:
        return {"quota_reason": cgroups.OTHER_GROUPS if before or after else cgroups.NO_QUOTA}
    return {
        "quota_periods": counted.periods,
        "throttled_periods": counted.throttled,
        "throttled_s": counted.throttled_s,
    }


def request_inputs(job: WorkerSpec, work: Workload) -> tuple[list[list[str]], Callable[[list[str]], Any]]:
    """Sentences per batch, and what turns them into token ids as the length policy says."""
    texts, policy = json.loads(Path(job.texts).read_text(encoding="utf-8")), job.identity["length_policy"]
    return [[texts[row] for row in rows] for rows in work.rows_of_batches], encoder(Path(job.tokenizer), policy)


def _classification(job: WorkerSpec, loaded: Executable, work: Workload, logits: torch.Tensor) -> dict[str, Any]:
    """Logits hash and accuracy over the distinct sentences of the cycle; leaves the predictions for the parent.

    Args:
        logits: of the whole cycle, float32 (sentences, labels).
    """
    random_weights = loaded.info.source == "random"
    names = loaded.info.label_names
    meaning = range(len(names)) if random_weights else match_labels(names, tuple(job.label_names))
    rows = [
        {
            "cell": job.identity["cell"],
            "sample": work.samples[work.rows[i]],
            "label": work.labels[work.rows[i]],
            "predicted": meaning[int(logits[i].argmax())],
            "logits": logits[i].tolist(),
        }
        for i in sorted(np.unique(work.rows, return_index=True)[1])  # a sentence that occurs twice counts once
    ]
    write_parquet(predictions_file(Path(job.run), job.identity["cell"]), rows, PREDICTIONS)
    return classification_fields(rows, random_weights)


def cycle_cost(loaded: Executable, tensors: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """The record's fields: both over all forwards of a cycle."""
    flops, moved = zip(*(loaded.cost(ids) for ids, _ in tensors), strict=True)
    return {"flops_per_cycle": sum(flops), "bytes_per_cycle": sum(moved)}
