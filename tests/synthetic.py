"""Runs that nobody measured: real files, written by the package's own functions, with numbers that one can follow."""

from __future__ import annotations

from typing import Any

from distilbench import paths, studies
from distilbench.measurements.sweep import records
from distilbench.measurements.sweep.kind import MEASUREMENT as SWEEP
from distilbench.measurements.sweep.measure import design
from distilbench.measurements.sweep.records import ITERATIONS, MEASURED_IN, Repetition, SweepCell, replace_predictions
from distilbench.measurements.sweep.summary import derive, join
from distilbench.runs import find, parameters, rawfiles
from distilbench.runs.folder import Run

SAMPLES = 32  # sentences per cycle
RIGHT = 24  # of them classified right
NO_ENERGY = "this run is synthetic"
TIMED = {name: 1.5 for name, where in MEASURED_IN.items() if where == "timing"} | {"logits_sha256": "0" * 64}


def commit(run: Run, record: Repetition, predicted: list[dict] | None = None) -> None:
    """Commits a record, with the predictions of its cell before it."""
    if predicted is not None:
        replace_predictions(run.folder, {record.cell}, predicted)
    run.commit(record)


def resolved(**given: Any) -> parameters.Resolved:
    """A small design: two cells, two repetitions each, with accuracy (the model is said to be the embedded one)."""
    small = {"profile": "ci", "source": "embedded", "batch_sizes": [1, 4], "samples_per_cycle": SAMPLES}
    small |= {"energy_cells": "all"}
    return studies.resolve("distilbert", small | given)


def iterations(batch_size: int, repetition: int = 0) -> list[dict[str, Any]]:
    """Two warm-up and two timed cycles; a batch takes 10 ms plus 2 ms per sentence, each repetition 1 % longer."""
    sizes = [min(batch_size, SAMPLES - i) for i in range(0, SAMPLES, batch_size)]
    return [
        {
            "kind": "forward",
            "cycle": cycle,
            "batch": batch,
            "warmup": cycle < 2,
            "samples": size,
            "latency_ms": (10 + 2 * size) * (1 + 0.01 * repetition) * (3 if cycle < 2 else 1),
            "latency_device_ms": None,
        }
        for cycle in range(4)
        for batch, size in enumerate(sizes)
    ]


def predictions(cell: str, right: int = RIGHT, n: int = SAMPLES) -> list[dict[str, Any]]:
    """n sentences, of which the first `right` are classified right."""
    rows = []
    for i in range(n):
        label = i % 2
        predicted = label if i < right else 1 - label
        logits = [0.5, -0.25 - i] if predicted == 0 else [-0.25 - i, 0.5]
        rows.append({"cell": cell, "sample": f"s{i}", "label": label, "predicted": predicted, "logits": logits})
    return rows


def repetition(cell: SweepCell, where: str = "timing", number: int = 0, **fields: Any) -> Repetition:
    """A record; for a finished one the fields of its pass must be given."""
    common = {
        "study": "distilbert",
        "repetition": number,
        "pass": where,
        "status": "ok",
        "started": "2026-11-22T14:15:00Z",
        "seconds": 1.5,
    }
    return Repetition(**cell.model_dump() | common | fields)


def warmup_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The warm-up of these iterations; one of a single cycle is said to have settled."""
    found = derive.warmup_of(rows, tested=True)
    return found if found["cycles"] > 1 else found | {"settled": True}


def timing(
    run: Run, cell: SweepCell, number: int, rows: list[dict[str, Any]], predicted: list[dict[str, Any]]
) -> Repetition:
    """The record of a timing repetition with these iterations, whose file is written."""
    file = f"iterations/{cell.cell}-{number:02d}.parquet"
    fields = derive.timing_fields(rows) | derive.classification_fields(predicted, cell.model_source == "random")
    return repetition(
        cell,
        number=number,
        **fields,
        warmup=warmup_of(rows),
        iterations_file=file,
        iterations_sha256=rawfiles.write_parquet(run.folder / file, rows, records.ITERATIONS),
        inputs_sha256=paths.sha256_bytes(cell.length_policy.encode(), bytes([cell.batch_size])),
        model_sha256=paths.sha256_bytes(b"weights"),
    )


def memory(cell: SweepCell, number: int = 0, peak_rss_MiB: float = 400.0) -> Repetition:
    """The record of a memory repetition."""
    reasons = {f"peak_cuda_{what}_MiB_reason": "the model ran on the CPU" for what in ("allocated", "reserved")}
    return repetition(cell, "memory", number, peak_rss_MiB=peak_rss_MiB + cell.batch_size, **reasons)


def measure(run: Run, cell: SweepCell, where: str, number: int) -> None:
    """Commits one repetition as the sweep does."""
    if where == "memory":
        commit(run, memory(cell, number))
        return
    if where == "energy":
        commit(run, repetition(cell, where, number, status="unavailable", error=NO_ENERGY))
        return
    predicted = predictions(cell.cell)
    record = timing(run, cell, number, iterations(cell.batch_size, number), predicted)
    commit(run, record, predicted if number == 0 else None)


def started_run(run_id: str = "", **given: Any) -> Run:
    """A run folder in which nothing is measured yet."""
    design_of_run = resolved(**given)
    run = find.create(design_of_run, SWEEP, run_id)
    run.record_once(
        "data.json",
        {
            "name": "invented",
            "rows": SAMPLES,
            "source": "local",
            "content_sha256": "d" * 64,
            "tokenizer_sha256": "e" * 64,
        },
        ("content_sha256", "tokenizer_sha256"),
    )
    run.record_once(
        "model.json", {"name": "imagined", "parameters": 1234567, "source": "embedded", "sha256": "f" * 64}, ("sha256",)
    )
    return run


def finished_run(run_id: str = "", **given: Any) -> Run:
    """A run in which every repetition of its design is committed and summarised."""
    run = started_run(run_id, **given)
    for cell, where, number in design.plan(resolved(**given)):
        measure(run, cell, where, number)
    return summarised(run)


def summarised(run: Run) -> Run:
    """The run with its summary.json and the states that follow from it."""
    derived = join.summarise(run.folder)
    paths.write_json(run.folder / "summary.json", derived)
    run.set_status("ok", cells={cell["cell"]: cell["state"] for cell in derived["cells"]})
    return run


def slowed(run: Run, factor: float) -> Run:
    """The same measurements, each iteration longer by the factor."""
    lines = []
    for record in run.repetitions():
        if record.pass_ == "timing":
            file = run.folder / record.iterations_file
            rows = [row | {"latency_ms": row["latency_ms"] * factor} for row in rawfiles.read_parquet(file)]
            record = record.model_copy(
                update=derive.timing_fields(rows)
                | {"iterations_sha256": rawfiles.write_parquet(file, rows, ITERATIONS)}
            )
        lines.append(record.to_line())
    run.raw.write_text("\n".join(lines) + "\n")
    return summarised(run)
