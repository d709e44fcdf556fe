"""The worker: a fresh process that measures one repetition of one cell, then ends.

    python -m distilbench.bench JOB.json

It reads the job and the prepared inputs, writes the iterations (and predictions) as parquet, and last the record as
JSON beside the job; the parent commits it. It imports nothing that a measurement does not need.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilbench import paths
from distilbench.batches import batches_sha256, load_inputs, make_batches, padding_share
from distilbench.bench.variants import VARIANTS, watch
from distilbench.collectors import latency, memory
from distilbench.device import gpu_identity, select, usable_cores
from distilbench.environment import now
from distilbench.errors import DistilbenchError, StorageError
from distilbench.models import LoadedModel, load_model, match_labels
from distilbench.records import ITERATIONS, PREDICTIONS, Repetition, write_parquet
from distilbench.summary import classification_fields, timing_fields

OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator: can't allocate", "CUBLAS_STATUS_ALLOC_FAILED")
ENERGY = ("energy_J", "energy_per_sample_J", "energy_net_per_sample_J")


@dataclass(frozen=True)
class Job:
    """What the parent asks for; all paths absolute.

    Attributes:
        run: the run folder.
        inputs: .npz with token ids, sample ids and labels.
        identity: the fields of the record that say which repetition this is.
        model: arguments of `load_model`.
        protocol: warmup_cycles, min_cycles, min_seconds, samples_per_cycle, seed, num_threads.
        label_names: of the data set.
        energy_reason: why there is no energy.
    """

    run: str
    inputs: str
    identity: dict[str, Any]
    model: dict[str, Any]
    protocol: dict[str, Any]
    label_names: list[str]
    energy_reason: str

    def save(self, file: Path) -> None:
        """Writes the job for the worker."""
        paths.write_json(file, asdict(self))


def main(job_file: Path) -> int:
    """Measures; 0 when a record was written, 3 when the device's memory did not suffice, 1 on other errors."""
    job = Job(**json.loads(job_file.read_text()))
    started, clock = now(), time.monotonic()
    try:
        fields = measure(job)
    except DistilbenchError as error:
        return _fail(job_file, "storage" if isinstance(error, StorageError) else "failed", str(error), 1)
    except Exception as error:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY):
            return _fail(job_file, "oom", str(error), 3)
        traceback.print_exc()
        return _fail(job_file, "failed", f"{type(error).__name__}: {error}", 1)
    fields |= {f"{name}_reason": job.energy_reason for name in ENERGY}
    record = Repetition(**job.identity, **fields, started=started, seconds=time.monotonic() - clock, status="ok")
    paths.write_atomic(job_file.with_suffix(".record.json"), record.to_line())
    return 0


def _fail(job_file: Path, status: str, error: str, code: int) -> int:
    """Leaves the reason beside the job; where even that cannot be written, says it on stderr."""
    first = (error.splitlines() or ["no message"])[0]
    try:
        paths.write_json(job_file.with_suffix(".failure.json"), {"status": status, "error": first})
    except StorageError:
        print(first, file=sys.stderr)
    return code


@dataclass(frozen=True)
class Workload:
    """One cycle of batches.

    Attributes:
        tensors: per batch (input_ids, attention_mask), int64 (batch, length), on the device.
        rows: which sentence stands where, over the whole cycle.
        samples, labels: of all sentences.
        sha256: of all batches.
        padding_share: share of positions that is padding.
    """

    tensors: list[tuple[torch.Tensor, torch.Tensor]]
    rows: np.ndarray
    samples: list[str]
    labels: list[int]
    sha256: str
    padding_share: float


def workload(job: Job, device: torch.device) -> Workload:
    """The job's cycle, copied to the device."""
    token_ids, samples, labels = load_inputs(Path(job.inputs))
    identity, protocol = job.identity, job.protocol
    batches = make_batches(
        token_ids, identity["batch_size"], identity["length_policy"], protocol["samples_per_cycle"], protocol["seed"]
    )
    tensors = [
        (torch.from_numpy(b.input_ids).to(device), torch.from_numpy(b.attention_mask).to(device)) for b in batches
    ]
    rows = np.concatenate([batch.rows for batch in batches])
    return Workload(tensors, rows, samples, labels, batches_sha256(batches), padding_share(batches))


def measure(job: Job) -> dict[str, Any]:
    """One repetition in this process: the fields of its record."""
    torch.set_num_threads(job.protocol["num_threads"] or usable_cores())
    variant, device = VARIANTS[job.identity["variant"]], select(job.model["device"])
    loaded = load_model(**job.model, **asdict(variant))
    loaded_rss = memory.rss_MiB()
    work = workload(job, device)
    memory.reset_cuda_peaks(device)
    with watch(loaded, variant) as proof:
        loaded.forward(*work.tensors[0])
    fields = {
        "inputs_sha256": work.sha256,
        "padding_share": work.padding_share,
        "model_sha256": loaded.info.sha256,
        "load_s": loaded.info.load_s,
        "num_threads": torch.get_num_threads(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "proof": proof | gpu_identity(device),
    }
    if job.identity["pass"] == "memory":
        return fields | _memory(loaded, work, device, loaded_rss)
    return fields | _timing(job, loaded, work, device)


def _memory(loaded: LoadedModel, work: Workload, device: torch.device, loaded_rss: float) -> dict[str, Any]:
    """Peaks over one whole cycle; nothing is timed here."""
    for pair in work.tensors:
        loaded.forward(*pair)
    fields = {"peak_rss_MiB": memory.peak_rss_MiB(), "loaded_rss_MiB": loaded_rss}
    peaks = memory.cuda_peaks_MiB(device)
    for i, name in enumerate(("peak_cuda_allocated_MiB", "peak_cuda_reserved_MiB")):
        fields |= {name: peaks[i]} if peaks else {f"{name}_reason": memory.NO_CUDA}
    return fields


def _timing(job: Job, loaded: LoadedModel, work: Workload, device: torch.device) -> dict[str, Any]:
    """Whole warm-up cycles, then whole timed cycles until both floors are met; the first timed one gives the logits."""
    protocol, clock = job.protocol, latency.clock_for(device)
    rows: list[dict[str, Any]] = []
    logits: list[torch.Tensor] = []
    for cycle in range(protocol["warmup_cycles"]):
        _cycle(rows, clock, loaded, work, cycle, warmup=True)
    spent_ms, cycles = 0.0, 0
    while cycles < protocol["min_cycles"] or spent_ms < protocol["min_seconds"] * 1e3:
        outputs = _cycle(rows, clock, loaded, work, protocol["warmup_cycles"] + cycles, warmup=False)
        logits = logits or outputs
        spent_ms += sum(row["latency_ms"] for row in rows[-len(outputs) :])
        cycles += 1
    file = f"iterations/{job.identity['cell']}-{job.identity['repetition']:02d}.parquet"
    fields = timing_fields(rows) | {
        "iterations_file": file,
        "iterations_sha256": write_parquet(Path(job.run) / file, rows, ITERATIONS),
    }
    return fields | _classification(job, loaded, work, torch.cat([part.float().cpu() for part in logits]))


def _cycle(rows: list, clock: Any, loaded: LoadedModel, work: Workload, cycle: int, warmup: bool) -> list[torch.Tensor]:
    """One pass over the batches, every iteration kept; returns the logits as they are on the device."""
    outputs = []
    for batch, (input_ids, mask) in enumerate(work.tensors):
        host_ms, device_ms, result = clock.time(lambda i=input_ids, m=mask: loaded.forward(i, m))
        outputs.append(result)
        rows.append(
            {
                "cycle": cycle, "batch": batch, "warmup": warmup, "samples": len(input_ids),
                "latency_ms": host_ms, "latency_device_ms": device_ms,
            }
        )  # fmt: skip
    return outputs


def _classification(job: Job, loaded: LoadedModel, work: Workload, logits: torch.Tensor) -> dict[str, Any]:
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


def predictions_file(run: Path, cell: str) -> Path:
    """Where a worker leaves a cell's predictions until the parent commits them."""
    return run / "work" / f"{cell}.predictions.parquet"
