"""benchmarks/single_gpu.md and benchmarks/ddp_2gpu.md: what published runs say of one process and of two.

They are rendered from records (`make pages`), and their first lines name the hardware that it was measured on.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from distilbench.measurements.training.show import tables
from distilbench.report import load
from distilbench.report.tables import markdown
from distilbench.runs.folder import Run

COMMAND = "distilbench run agnews --profile full --device cuda -p processes=1,2"
Row = dict[str, object]


def single(runs: list[Run]) -> str:
    """The page of one process.

    Args:
        runs: published ones of the study.
    """
    return _page("Training on one device", runs, lambda row: row["processes"] == 1, _NO_GPU)


def double(runs: list[Run]) -> str:
    """The page of two processes, with the speed-up over one."""
    return _page(
        "Training on two devices, with DistributedDataParallel", runs, lambda row: row["processes"] <= 2, _NO_GPUS
    )


_NO_GPU = "No GPU was at hand: these are the cores of a CPU, and say nothing of a GPU."
_NO_GPUS = (
    "No two GPUs were at hand: these are two processes on the cores that one process has alone, so a linear "
    "speed-up is 1. They say nothing of two GPUs."
)


def _page(title: str, runs: list[Run], of: Callable[[Row], bool], without_gpu: str) -> str:
    lines = [f"# {title}", ""]
    if not runs:
        lines += [f"No run is published yet. On GPUs, this measures what belongs here: `{COMMAND}`.", ""]
    for run in runs:
        on_gpu = run.config["parameters"]["device"].startswith("cuda")
        rows = [row for row in load.table([run]).to_dict("records") if of(row)]
        lines += [f"## {load.label(run)}", "", f"**Hardware: {load.label(run)}.** "]
        lines[-1] += "" if on_gpu else f"{without_gpu} On GPUs: `{COMMAND}`."
        lines += ["", *_tables(rows, run)]
    return "\n".join([*lines, "This page is rendered from records by `make pages`; nothing in it is typed.", ""])


def _tables(rows: list[Row], run: Run) -> list[str]:
    parts: list[tuple[str, pd.DataFrame]] = [
        ("Samples/s and speed-up; brackets give intervals over repetitions.", tables.results(rows)),
        ("Where a step goes.", tables.steps(rows)),
        ("Each training.", tables.trainings(rows)),
        ("Each epoch.", tables.epochs(rows)),
    ]
    found = [line for text, table in parts for line in (text, "", markdown(table.astype(str)), "")]
    said = [f"- {doubt}" for row in rows for doubt in [f"{row['cell']}: {one}" for one in row["doubts"]]]
    return [*found, *(["What this cannot say:", "", *said, ""] if said else []), f"{load.citation(run)}", ""]
