"""What dimension alignment shows, under the names by which general code asks for it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.measurements.alignment.show import plots, tables
from distilbench.report import load
from distilbench.report.glue import Value
from distilbench.report.tables import Table
from distilbench.runs.folder import Run

TITLE = "Products and attention by dimension"
SUBJECT = "matrix products and attention by one dimension, aligned and not"
NOTE = """\
Each dimension that is no multiple of a block is held against the next multiple, in the same process: above 1 the larger
one takes more time, below 1 less. Memory is in proportion to the dimension."""


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """One row per operation and block, as text."""
    return tables.rounding(table.to_dict("records"))


def frame(run: Run) -> pd.DataFrame:
    """One row per operation and dimension, unrounded, for other programs."""
    return pd.DataFrame(
        {
            "run_id": run.run_id, "cell": row["cell"], "state": row["state"], "dimension": one["dimension"],
            "latency_ms": one["latency_ms"], "gflop_per_s": one["gflop_per_s"],
            "latency_ms_low": (one["latency_95_ms"] or (None, None))[0],
            "latency_ms_high": (one["latency_95_ms"] or (None, None))[1],
        }
        for row in run.summary["cells"]
        for one in row["dimensions"]
    )  # fmt: skip


def numbers(run: Run) -> dict[str, Value]:
    """The numbers that prose may name: `<operation>-d<dimension>-…` and `<operation>-block<block>-…`."""
    found: dict[str, Value] = {"run_id": run.run_id, "machine": load.label(run)}
    for row in run.summary["cells"]:
        name = row["operation"]
        for one in row["dimensions"]:
            found[f"{name}-d{one['dimension']}-latency_ms"] = one["latency_ms"]
        for one in row["rounded"]:
            stem = f"{name}-block{one['block']}"
            found |= {f"{stem}-dimensions": len(one["pairs"])}
            found |= {f"{stem}-{key}": one[key] for key in ("memory_ratio", "time_ratio", "faster", "surely_faster")
                      if one[key] is not None}  # fmt: skip
            for pair in one["pairs"]:
                ends = pair["time_ratio_95"] or ()
                found[f"{stem}-d{pair['dimension']}-time_ratio"] = pair["time_ratio"]
                found |= {f"{stem}-d{pair['dimension']}-time_ratio_{end}": value
                          for end, value in zip(("low", "high"), ends, strict=False)}  # fmt: skip
    return found


def caption(table: pd.DataFrame) -> str:
    """What the numbers of a table are."""
    return "What rounding a dimension up costs in memory and gives in time: medians over dimensions"


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence."""
    said = [
        f"{tables.NAMES[cell['operation']]}: rounded up to multiples of {one['block']}, {one['time_ratio']:.2f} times "
        f"the time for {one['memory_ratio']:.2f} times the memory"
        for cell in summary["cells"]
        for one in cell["rounded"][:1]
        if one["pairs"]
    ]
    return f"{'; '.join(said)}." if said else "Nothing was measured."


def sentences(table: pd.DataFrame) -> list[str]:
    """How often the larger dimension is the faster one."""
    return [
        f"{tables.NAMES[row['operation']]}: in {one['faster']} of {len(one['pairs'])} cases the next multiple of "
        f"{one['block']} takes less time than the smaller dimension, in {one['surely_faster']} of them for sure"
        for row in table.to_dict("records")
        for one in row["rounded"]
        if one["pairs"]
    ]


def details(table: pd.DataFrame, label: str) -> list[Table]:
    """Single dimensions, where a run has alignment as a section."""
    caption_ = "The dimensions that gain most by rounding up"
    return [Table(tables.largest(table.to_dict("records")), caption_, f"{label}-largest")]


def about(run: Run) -> dict[str, str | int]:
    """What was timed, and how often."""
    params = run.config["parameters"]
    counts = ", ".join(f"{pass_name}: {count}" for pass_name, count in load.processes(run).items())
    return {
        "operations": f"{run.data['name']}, {params['dtype']}",
        "dimensions": f"{len(params['dimensions'])}, from {min(params['dimensions'])} to {max(params['dimensions'])}",
        "fresh processes per operation": counts or "none",
    }


def subject(run: Run) -> list[str]:
    """What was timed, in a line each."""
    return [f"operations: {run.data['name']}"]


def reservation(summary: dict[str, Any]) -> str:
    """What a run that is not for citation cannot say."""
    return "So few rounds and processes cannot say which dimensions are slower."


figure_caption, picture, save = plots.caption, plots.by_dimension, plots.save
