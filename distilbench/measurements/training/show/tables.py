"""The tables of trainings: speed and speed-up, where the time of a step goes, accuracies, epochs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.progress import duration
from distilbench.report.tables import DASH, known, machine_column, number, with_ends

Row = dict[str, Any]


def results(rows: list[Row]) -> pd.DataFrame:
    """One row per configuration: rate, speed-up, efficiency, as text."""
    return pd.DataFrame(
        {
            **machine_column(row, rows),
            "processes": str(row["processes"]),
            "scaling": row["scaling"] if row["scaling"] != "one" else DASH,
            "rows per step": str(row["rows_per_step"]),
            "samples/s": with_ends(row.get("throughput_samples_per_s"), row.get("throughput_95"), ".1f"),
            "speed-up": _speedup(row),
            "efficiency": with_ends(row.get("efficiency"), row.get("efficiency_95"), ".2f"),
            "all-reduce": _share(row, "allreduce"),
            "test accuracy": number(row.get("test_accuracy"), ".4f"),
            "state": row["state"],
        }
        for row in rows
    )


def _speedup(row: Row) -> str:
    if known(row.get("speedup_refused")):
        return "not said: unequal budgets"
    return with_ends(row.get("speedup"), row.get("speedup_95"), ".2f")


def steps(rows: list[Row]) -> pd.DataFrame:
    """What a step takes, and in which phases."""
    return pd.DataFrame(
        {
            **machine_column(row, rows),
            "configuration": row["cell"],
            "threads each": str(int(row["threads_per_process"])),
            "step (ms)": with_ends(row["step_ms"], row.get("step_95_ms"), ".1f"),
            **{name: _share(row, name) for name in ("data", "forward", "backward", "optimizer", "allreduce")},
            "padding": f"{row['padding_share']:.0%}",
            "memory, all (MiB)": f"{row['peak_rss_MiB']:,.0f}",
        }
        for row in rows
        if isinstance(row.get("shares"), dict)
    ).rename(columns={"allreduce": "all-reduce, beside it"})


def trainings(rows: list[Row]) -> pd.DataFrame:
    """How good each configuration became, and how long that took."""
    found = [
        {
            **machine_column(row, rows),
            "configuration": row["cell"],
            "epochs": str(len(row["epochs"])),
            "time per epoch": duration(row["training_s"] / len(row["epochs"])),
            "time of all": duration(row["training_s"]),
            "best epoch": str(int(row["best_epoch"])),
            "test accuracy": with_ends(row["test_accuracy"], row["test_wilson_95"], ".4f"),
            "test rows": f"{int(row['test_rows']):,}",
        }
        for row in trained(rows)
    ]
    return pd.DataFrame(found or [{"configuration": DASH, "why": "none was trained to the end"}])


def epochs(rows: list[Row]) -> pd.DataFrame:
    """Each epoch: loss, accuracies, time, energy."""
    found = [
        {
            **machine_column(row, rows),
            "configuration": row["cell"],
            "epoch": str(one["epoch"]),
            "training loss": f"{one['training_loss']:.4f}",
            "training accuracy": f"{one['training_accuracy']:.4f}",
            "validation accuracy": number(one["validation_accuracy"], ".4f"),
            "wall time": duration(one["seconds"]),
            "energy (J)": number(one["energy_J"], ",.0f"),
        }
        for row in trained(rows)
        for one in row["epochs"]
    ]
    return pd.DataFrame(found or [{"configuration": DASH, "why": "none was trained to the end"}])


def loops(rows: list[Row]) -> pd.DataFrame:
    """What is left of the samples/s of a bare loop."""
    found = [
        {
            **machine_column(row, rows),
            "configuration": row["cell"],
            "bare loop (samples/s)": f"{row['loop_samples_per_s']:.1f}",
            "the training reaches": with_ends(row["loop_share"], row.get("loop_share_95"), ".1%"),
        }
        for row in rows
        if known(row.get("loop_share"))
    ]
    return pd.DataFrame(found or [{"configuration": DASH, "why": "not compared"}])


def trained(rows: list[Row]) -> list[Row]:
    """The configurations that were trained to the end; a column of several runs has NaN where one has nothing."""
    return [row for row in rows if isinstance(row.get("epochs"), list) and row["epochs"]]


def _share(row: Row, name: str) -> str:
    shares = row.get("shares")
    if not isinstance(shares, dict) or (name == "allreduce" and row["processes"] == 1):
        return DASH
    return f"{shares[name]:.1%}"
