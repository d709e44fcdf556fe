"""Finished runs of the batches study that nobody measured: real files, with a profile in the section."""

from __future__ import annotations

from typing import Any

import synthetic

from distilbench import paths, studies
from distilbench.measurements.profiling.records import PASS, ProfileRecord
from distilbench.measurements.sweep.kind import MEASUREMENT as SWEEP
from distilbench.measurements.sweep.records import SweepCell
from distilbench.runs import find
from distilbench.runs.folder import Run

MODEL = {"disk_bytes": None, "memory_bytes": 2**20}


def finished_run(**given: Any) -> Run:
    """A run of the ci profile: a batch of n takes 10 ms + 2 ms · n, and its product all but 4 ms of that."""
    resolved = studies.resolve("batches", {"profile": "ci"} | given)
    run = find.create(resolved, SWEEP, sections=studies.sections(resolved))
    _describe(run)
    for cell, where, number in SWEEP.plan(resolved):
        synthetic.measure(run, cell, where, number)
    for section in run.sections:
        _describe(section)
        for cell, _, number in section.kind.plan(studies.section(run, resolved, section.kind.name)[1]):
            section.commit(profiled(cell, number))
        _finish(section)
    return _finish(run)


def _describe(run: Run) -> None:
    hashes = {"content_sha256": "d" * 64, "tokenizer_sha256": "e" * 64}
    data = {"name": "invented", "rows": synthetic.SAMPLES, "source": "local"} | hashes
    run.record_once("data.json", data, tuple(hashes))
    model = {"name": "imagined", "parameters": 1234567, "source": "random", "sha256": "f" * 64} | MODEL
    run.record_once("model.json", model, ("sha256",))


def _finish(run: Run) -> Run:
    summary = run.kind.summarise(run.folder)
    paths.write_json(run.folder / "summary.json", summary)
    run.set_status("ok", cells={cell["cell"]: cell["state"] for cell in summary["cells"]})
    return run


def profiled(cell: SweepCell, number: int, on_gpu: bool = False) -> ProfileRecord:
    """A profile of one cell; on a GPU its product has a kernel that takes half of the operator's own time."""
    size = cell.batch_size
    times = {"aten::addmm": 6.0 + 2 * size, "aten::gelu": 1.0}
    common = {"calls": 6.0, "flops": 0.0, "bytes": 0.0, "allocated_MiB": 0.0}
    shapes = [{"dims": [[size, 64], [64, 64]], "calls": 6.0, "ms": 6.0 + 2 * size}]
    operators = [{"operator": name, "self_ms": ms, "work_ms": ms / 2} | common for name, ms in times.items()]
    operators[0] |= {"shapes": shapes}
    if on_gpu:
        operators[0] |= {"kernels": [{"kernel": "gemm", "calls": 6.0, "ms": 3.0 + size}]}
    forward_ms = (10 + 2 * size) * (1 + 0.01 * number)
    return ProfileRecord(
        **cell.model_dump(), **{"pass": PASS}, study="batches", repetition=number, status="ok", seconds=1.5,
        started="2026-11-27T12:00:00Z", forward_ms=forward_ms, profiled_ms=1.2 * forward_ms, slow_down=1.2,
        operators=operators, files_sha256={"profiler_traces/trace.json": "0" * 64},
    )  # fmt: skip
