"""What a profile shows, under the names by which general code asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from distilbench import paths
from distilbench.measurements.profiling.show import tables
from distilbench.measurements.profiling.show.advice import advice
from distilbench.measurements.sweep.show.entry import measured_with, page_name, subject
from distilbench.report import load
from distilbench.report.defaults import figure_caption, mark_of
from distilbench.report.glue import Value
from distilbench.report.tables import Table
from distilbench.runs.folder import Run

__all__ = ["advice", "figure_caption", "mark_of", "measured_with", "page_name", "subject"]
NOTE = """\
The forward is timed without a profiler. Dispatch is the part of it in which no operator works; the rest is arithmetic
or memory by each operator's FLOPs per byte, against the ceilings that the run measured. Times of single operators were
taken under the profiler, which makes a forward longer: they are shares, never latencies."""
NUMBERS = (
    "forward_ms", "slow_down", "layers_ratio", "outside_share", "peak_MiB", "load_s", "dispatch_share", "memory_share",
    "compute_share", "intensity_FLOP_per_B", "ridge_FLOP_per_B", "compute_ceiling_share", "memory_ceiling_share",
    "work_share", "operator_calls", "null_us",
)  # fmt: skip


def rows(run: Run) -> Iterator[dict[str, Any]]:
    """The cells of a run, for tables of several runs."""
    yield from paths.read_json(run.folder / "summary.json")["cells"]


def cells(run: Run, summary: dict[str, Any]) -> pd.DataFrame:
    """One row per cell, as text."""
    return tables.verdicts(summary["cells"])


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """The same of a table of several runs."""
    return tables.verdicts(table.to_dict("records"))


def frame(run: Run) -> pd.DataFrame:
    """One row per cell, unrounded, for other programs."""
    names = ("cell", "batch_size", "length_policy", "state", "verdict", *NUMBERS)
    return pd.DataFrame({"run_id": run.run_id} | {name: row.get(name) for name in names} for row in rows(run))


def caption(table: pd.DataFrame) -> str:
    """What the numbers of a table are."""
    return (
        "What bounds a forward: the forward's time without a profiler (median over fresh processes of their median), "
        "and its parts in the process that stands in the middle"
    )


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence."""
    known = [cell for cell in summary["cells"] if cell.get("verdict")]
    said = ", ".join(f"batch size {cell['batch_size']} ({cell['length_policy']}) {cell['verdict']}" for cell in known)
    return f"{said}." if said else "No verdict: nothing was measured, or no ceilings."


def sentences(table: pd.DataFrame) -> list[str]:
    """The verdict of each cell with its evidence."""
    return [
        f"{row['length_policy']}, batch size {row['batch_size']}: {row['verdict'] or 'no verdict'}; {row['evidence']}"
        for row in tables.measured(table.to_dict("records"))
    ]


def details(table: pd.DataFrame, label: str) -> list[Table]:
    """Operators, layers and memory, where a run has a profile as a section."""
    rows = table.to_dict("records")
    return [
        Table(
            tables.operators(tables.ends(rows)),
            "Operators by their own time, under the profiler, at the smallest and the largest batch size",
            f"{label}-operators",
        ),
        Table(tables.alike_layers(rows), "Time of each layer, without the profiler", f"{label}-layers"),
        Table(tables.memory(rows), "Peak of results during a forward", f"{label}-memory", prose=True),
    ]


def doubts(summary: dict[str, Any]) -> list[str]:
    """What was not measured, and what speaks against a verdict."""
    said = [f"{cell['cell']}: not measured ({cell['state']})" for cell in summary["cells"] if "operators" not in cell]
    return said + [f"{cell['cell']}: {doubt}" for cell in summary["cells"] for doubt in cell.get("doubts", [])]


def counted(run: Run) -> str:
    """What was computed again when the run was verified."""
    measured = run.measured()
    traces = sum(one.events not in run.left_out for one in measured)
    if traces == len(measured):
        return f"{traces} profiles computed again from their traces and readings"
    return f"{len(measured)} profiles computed again from their readings, {traces} of them also from their traces"


def title(run: Run) -> str:
    """What its page is about; the machine follows."""
    return f"Where the time goes: {paths.read_json(run.folder / 'model.json')['name']}"


def cited(run: Run) -> str:
    """What was measured, for a citation; the machine follows."""
    row = about(run)
    return f"Profile of {row['model']} ({row['source of the model']})"


def about(run: Run) -> dict[str, str | int]:
    """What was measured, and how often."""
    params, summary = run.config["parameters"], paths.read_json(run.folder / "summary.json")
    model, data = (paths.read_json(run.folder / file) for file in ("model.json", "data.json"))
    size = summary["model"]
    disk = f"{size['disk_MiB']:.0f} MiB on disk, " if size["disk_MiB"] is not None else ""
    return {
        "model": f"{model['name']}, {size['parameters_M']:.1f} million parameters, {params['dtype']}",
        "its size": f"{disk}{size['memory_MiB']:.0f} MiB in memory",
        "source of the model": model["source"],
        "text": f"{data['name']}, {data['rows']:,} sentences",
        "fresh processes per cell": params["repetitions"],
        "profiled": f"{params['profiler_active']} forwards, after {params['profiler_wait']} waited for and "
        f"{params['profiler_warmup']} thrown away",
    }


def numbers(run: Run) -> dict[str, Value]:
    """The numbers that prose may name: of the run, and per cell `<variant>-<length>-b<batch size>-<name>`."""
    model = paths.read_json(run.folder / "summary.json")["model"]
    found: dict[str, Value] = {"run_id": run.run_id, "machine": load.label(run), "measured_on": _day(run)}
    found |= {name: model[name] for name in ("parameters_M", "disk_MiB", "memory_MiB") if model[name] is not None}
    for row in rows(run):
        where = f"{row['variant']}-{row['length_policy']}-b{row['batch_size']}"
        found |= {f"{where}-{name}": row[name] for name in (*NUMBERS, "verdict") if row.get(name) is not None}
        for part in ("request", "utilisation"):
            held = (row.get(part) or {}).items()
            found |= {f"{where}-{part}_{name}": value for name, value in held if isinstance(value, float)}
    return found


def _day(run: Run) -> str:
    return run.config["created"][:10]
