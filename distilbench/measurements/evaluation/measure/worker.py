"""The process that classifies all rows: chunk by chunk, after those that earlier processes committed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from distilbench.collectors import memory
from distilbench.errors import RunError
from distilbench.harness.outcome import leave_record
from distilbench.machine.device import gpu_identity, select
from distilbench.measurements.evaluation.measure import files
from distilbench.measurements.evaluation.measure.chunks import Chunk, ChunkFile, place
from distilbench.measurements.evaluation.measure.classifier import Classifier
from distilbench.measurements.evaluation.measure.spec import EvaluationSpec
from distilbench.measurements.evaluation.records import EvaluationRecord
from distilbench.measurements.evaluation.summary import derive
from distilbench.measurements.sweep.measure import worker as sweep
from distilbench.sources.labelled_rows import Row
from distilbench.variants import registry


def main(file: Path) -> int:
    """Measures; 0 when a record was written (see `outcome.leave_record`)."""
    job = EvaluationSpec(**json.loads(file.read_text(encoding="utf-8")))
    return leave_record(file, job, EvaluationRecord, measure)


def measure(job: EvaluationSpec) -> dict[str, Any]:
    """All rows that no earlier process has done, then the fields of the record of all of them."""
    cores = sweep.take_cores(job.protocol)
    threads = sweep.threads_used(job, cores)
    device, run, cell = select(job.model["device"]), Path(job.run), job.identity["cell"]
    variant = registry.named(job.identity["variant"])
    loaded = variant.load(**job.model)
    classifier = Classifier(job, loaded, device)
    with variant.watch(loaded) as proof:
        classifier.classify(list(islice(read_rows(Path(job.rows)), job.identity["batch_size"])))  # counts nowhere
    with ChunkFile(place(run, cell)).held() as chunks:
        evaluate(job, classifier, chunks)
        peak, on_device = memory.peak_rss_MiB(), memory.cuda_peaks_MiB(device)
        sha256 = files.write(run, cell, chunks)
    return derive.fields_of(run, cell, job.label_names, loaded.info.source == "random") | {
        "rows_damaged": job.rows_damaged,
        "files_sha256": sha256,
        "model_sha256": loaded.info.sha256,
        "load_s": loaded.info.load_s,
        "peak_rss_MiB": peak,
        "peak_cuda_allocated_MiB": on_device and on_device[0],
        "num_threads": torch.get_num_threads(),
        "affinity": cores,
        "proof": proof | gpu_identity(device),
        **threads,
    }


def read_rows(file: Path) -> Iterator[Row]:
    """The prepared rows, one at a time."""
    with file.open(encoding="utf-8") as opened:
        for line in opened:
            number, label, text = json.loads(line)
            yield Row(number, text, label)


def evaluate(job: EvaluationSpec, classifier: Classifier, chunks: ChunkFile) -> None:
    """Commits the chunks that are missing; those that are there must be of the same rows.

    Raises:
        RunError: they are of others.
    """
    done, rows, size = chunks.read(), read_rows(Path(job.rows)), job.protocol["rows_per_chunk"]
    number, begun = 0, time.perf_counter()
    while some := list(islice(rows, size)):
        there, sha256 = next(done, None), rows_sha256(some)
        if there is None:
            computed = classifier.chunk(some)
            now = time.perf_counter()
            chunks.append(Chunk(chunk=number, chunk_s=now - begun, chunk_sha256=sha256, **computed))
            begun = now
        elif (there.chunk_sha256, there.row) != (sha256, [row.number for row in some]):
            raise RunError(
                f"{chunks.file}: chunk {number} is of other rows than {job.rows} has now; start a new run (--new)"
            )
        else:
            begun = time.perf_counter()
        number += 1
    if next(done, None) is not None:
        raise RunError(f"{chunks.file} has more chunks than {job.rows} has rows; start a new run (--new)")


def rows_sha256(rows: list[Row]) -> str:
    """SHA-256 of rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.number}\t{row.label}\t{row.text}\n".encode())
    return digest.hexdigest()
