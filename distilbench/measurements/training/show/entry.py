"""What trainings show, under the names by which general code asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from distilbench.measurements.training.show import pages, plots, tables
from distilbench.report import load
from distilbench.report import readings as of_processes
from distilbench.report.glue import Value
from distilbench.report.tables import Table
from distilbench.runs.folder import Run

TITLE = "DistilBERT trained in one process and in many"
SUBJECT = "training in one process and in many"
OF_CONTENT = ("test_accuracy",)
NOTE = """\
Samples/s counts the rows of all processes from the first timed step's start to the last one's end. A speed-up is the
median over repetitions side by side, against one process with the same budget: as many threads on as many cores in all,
or one GPU of the same kind per process. All-reduce runs beside the backward pass."""
NUMBERS = (
    "processes", "batch_size", "rows_per_step", "repetitions", "throughput_samples_per_s", "step_ms", "speedup",
    "efficiency", "linear_speedup", "padding_share", "threads_per_process", "peak_rss_MiB", "peak_cuda_allocated_MiB",
    "best_epoch", "test_accuracy", "test_rows", "training_s", "loop_share", "loop_samples_per_s",
)  # fmt: skip
ENDS = {
    "throughput_95": "throughput_samples_per_s", "step_95_ms": "step_ms", "speedup_95": "speedup",
    "efficiency_95": "efficiency", "test_wilson_95": "test_accuracy", "loop_share_95": "loop_share",
}  # fmt: skip


def rows(run: Run) -> Iterator[dict[str, Any]]:
    """The cells of a run, for tables of several runs."""
    yield from run.summary["cells"]


def cells(run: Run, summary: dict[str, Any]) -> pd.DataFrame:
    """One row per configuration, as text."""
    return tables.results(summary["cells"])


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """The same of a table of several runs."""
    return tables.results(table.to_dict("records"))


def frame(run: Run) -> pd.DataFrame:
    """One row per configuration, unrounded, for other programs."""
    return pd.DataFrame(
        {"run_id": run.run_id, "cell": row["cell"], "scaling": row["scaling"], "state": row["state"]} | _numbers(row)
        for row in rows(run)
    )


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    found = {name: row.get(name) for name in NUMBERS}
    found |= {f"{name}_share": share for name, share in (row.get("shares") or {}).items()}
    for name, of in ENDS.items():
        found[f"{of}_low"], found[f"{of}_high"] = row.get(name) or (None, None)
    epochs = row.get("epochs") or []
    return found | {"epochs": len(epochs) or None, "epoch_s": row["training_s"] / len(epochs) if epochs else None}


def numbers(run: Run) -> dict[str, Value]:
    """The numbers that prose may name: of the run, and per configuration `<cell>-<name>`."""
    found: dict[str, Value] = {
        "run_id": run.run_id,
        "machine": load.label(run),
        "measured_on": run.config["created"][:10],
        "model": run.model["name"],
        "model_parameters": run.model["parameters"],
        "data": run.data["name"],
        "data_labels": len(run.data["label_names"]),
        **{f"{name}_rows": one["rows"] for name, one in run.data["splits"].items()},
    }
    for row in rows(run):
        known = {name: value for name, value in _numbers(row).items() if value is not None}
        found |= {f"{row['cell']}-{name}": value for name, value in known.items()}
    return found


def readings(run: Run, number: str, proof: Mapping[str, Any]) -> list[of_processes.Readings]:
    """What each group of processes says of a number; a test accuracy is counted, over all test rows.

    `throughput_samples_per_s` is that of timed steps alone: whole trainings and bare loops have one as well.
    """
    found = of_processes.of_records(run, number, proof)
    if number == "test_accuracy":
        counts = {row["cell"]: (row["test_accuracy"], row["test_rows"]) for row in tables.trained(list(rows(run)))}
        return [replace(one, counted=(round(share * n), n)) for one in found for share, n in [counts[one.name]]]
    if number not in ("throughput_samples_per_s", "step_ms"):
        return found
    timed = {
        (one.cell, one.repetition): getattr(one, number)
        for one in run.measured()
        if one.pass_ in run.kind.comparable.values()
    }
    return [
        replace(one, by_round={n: timed[one.name, n] for n in one.by_round if (one.name, n) in timed}) for one in found
    ]


def caption(table: pd.DataFrame) -> str:
    """What the numbers of a table are."""
    return "Training in one process and in many, at equal budgets: medians over groups of processes, with intervals"


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence."""
    said = [_sentence(cell) for cell in summary["cells"] if tables.known(cell.get("throughput_samples_per_s"))]
    good = [
        f"test accuracy {tables.with_ends(cell['test_accuracy'], cell['test_wilson_95'], '.4f')} "
        f"over {cell['test_rows']:,} rows in {_in(cell)}"
        for cell in tables.trained(summary["cells"])
    ]
    return f"{'; '.join([*said, *good])}." if said or good else "Nothing was trained."


def _in(cell: dict[str, Any]) -> str:
    return "one process" if cell["processes"] == 1 else f"{cell['processes']} processes ({cell['scaling']})"


def _sentence(cell: dict[str, Any]) -> str:
    rate = f"{cell['throughput_samples_per_s']:.1f} samples/s in {_in(cell)}"
    if cell.get("speedup") is None:
        return rate
    return f"{rate}, {tables.with_ends(cell['speedup'], cell['speedup_95'], '.2f')} times as many"


def sentences(table: pd.DataFrame) -> list[str]:
    """What each configuration gains, against what it could gain, and where it is lost."""
    found = []
    for row in table.to_dict("records"):
        if not tables.known(row.get("speedup")):
            continue
        speedup = tables.with_ends(row["speedup"], row.get("speedup_95"), ".2f")
        found.append(
            f"{row['cell']}: {speedup} times the samples/s of one process (linear: {row['linear_speedup']:g}); "
            f"gradients are under way for {row['shares']['allreduce']:.0%} of a step"
        )
    return found


def details(table: pd.DataFrame, label: str) -> list[Table]:
    """Steps and accuracies, where a run has trainings as a section."""
    every = table.to_dict("records")
    return [
        Table(tables.steps(every), "What a step takes, and in which phases", f"{label}-steps"),
        Table(tables.trainings(every), "How good each training became", f"{label}-trainings"),
    ]


def about(run: Run) -> dict[str, str | int]:
    """What was trained on what, and how often."""
    params, splits = run.config["parameters"], run.data["splits"]
    counts = ", ".join(f"{pass_name}: {count}" for pass_name, count in load.processes(run).items())
    return {
        "model": f"{run.model['name']}, {run.model['parameters']:,} parameters, {params['dtype']}",
        "source of the model": run.model["source"],
        "text": f"{run.data['name']}: " + ", ".join(f"{one['rows']:,} {name}" for name, one in splits.items()),
        "precision of products": params["precision"],
        "repetitions per configuration": counts or "none",
    }


def subject(run: Run) -> list[str]:
    """What was trained, in a line each."""
    counts = ", ".join(f"{one['rows']:,} {name}" for name, one in run.data["splits"].items())
    return [
        f"model: {run.model['name']}, {run.model['parameters']:,} parameters ({run.model['source']})",
        f"text: {run.data['name']}: {counts} rows",
    ]


def reservation(summary: dict[str, Any]) -> str:
    """What a run that is not for citation cannot say."""
    return (
        "So few steps and repetitions cannot say how sure a speed-up is; one training cannot say how far seeds differ."
    )


def figure_caption(run: Run, figure: str) -> str | None:
    """What a figure of a page shows; None where the run has nothing to show there."""
    return plots.caption(run, figure)


def rendered(runs: list[Run]) -> dict[str, str]:
    """The pages of one device and of two, from the published runs."""
    return {"benchmarks/single_gpu.md": pages.single(runs), "benchmarks/ddp_2gpu.md": pages.double(runs)}


def counted(run: Run) -> str:
    """What was computed again when the run was verified."""
    return f"{len(run.measured())} trainings and repetitions computed again from their steps and predictions"
