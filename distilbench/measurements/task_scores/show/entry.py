"""What task scores show, under the names by which general code asks for it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.measurements.task_scores.show import plots, tables
from distilbench.report import load
from distilbench.report.glue import Value
from distilbench.report.tables import Table
from distilbench.runs.folder import Run

TITLE = "Tasks answered by a decoder, whole and compressed"
SUBJECT = "tasks answered with keys and values whole and compressed"
OF_CONTENT = ("accuracy", "accuracy_norm", "margin_nat")
NOTE = """\
Accuracy is the share of questions whose most probable choice is right; per character, the same with log-probabilities
over the length of a choice. Brackets give Wilson's 95 % intervals. A task called mini has questions of the task it is
named after, not its test set: its score must not be compared with published ones."""
NUMBERS = (
    "documents", "accuracy", "accuracy_norm", "chance", "margin_nat", "checked", "own_difference_nat", "own_disagreed",
    "seconds_per_document_s", "effective_ratio", "accuracy_difference", "lost", "won", "mcnemar_p", "visible",
    "margin_difference_nat",
)  # fmt: skip
ENDS = {
    "accuracy_95": "accuracy", "accuracy_difference_95": "accuracy_difference",
    "margin_difference_95": "margin_difference_nat",
}  # fmt: skip


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, as text."""
    return tables.cells(table.to_dict("records"))


def frame(run: Run) -> pd.DataFrame:
    """One row per cell, unrounded, for other programs."""
    names = ("cell", "variant", "task", "shots", "state")
    return pd.DataFrame(
        {"run_id": run.run_id} | {name: row[name] for name in names} | _numbers(row) for row in run.summary["cells"]
    )


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    found = {name: row.get(name) for name in NUMBERS}
    for name, of in ENDS.items():
        found[f"{of}_low"], found[f"{of}_high"] = row.get(name) or (None, None)
    return found


def numbers(run: Run) -> dict[str, Value]:
    """The numbers that prose may name: of the run, and per cell `<cell>-<name>`."""
    found: dict[str, Value] = {
        "run_id": run.run_id, "machine": load.label(run), "model": run.model["name"], "data": run.data["name"],
        "data_documents": run.data["documents"],
    }  # fmt: skip
    for row in run.summary["cells"]:
        known = {name: value for name, value in _numbers(row).items() if tables.known(value)}
        found |= {f"{row['cell']}-{name}": value for name, value in known.items()}
    return found


def caption(table: pd.DataFrame) -> str:
    """What the numbers of a table are."""
    return "Questions answered right, whole and compressed"


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence."""
    said = [
        f"{cell['task']} with {cell['shots']} examples: {cell['accuracy']:.3f} of {cell['documents']} right "
        f"({tables.NAMES[cell['variant']]})"
        for cell in summary["cells"]
        if cell["state"] == "ok"
    ]
    return f"{'; '.join(said)}." if said else "Nothing was measured."


def sentences(table: pd.DataFrame) -> list[str]:
    """What compression changes, and how large a change so many questions can show."""
    return [
        f"{row['task']}, {row['shots']} examples: compression loses {row['lost']:.0f} answers and wins "
        f"{row['won']:.0f}; a difference of {row['visible']:.3f} in accuracy would have shown in four of five cases"
        for row in table.to_dict("records")
        if tables.known(row.get("accuracy_difference"))
    ]


def details(table: pd.DataFrame, label: str) -> list[Table]:
    """The variants against each other, and the two scorers, where a run has tasks as a section."""
    every = table.to_dict("records")
    return [
        Table(tables.differences(every), "What compression changes, on the same questions", f"{label}-differences"),
        Table(tables.checks(every), "The harness against a scorer of our own", f"{label}-checks"),
    ]


def about(run: Run) -> dict[str, str | int]:
    """What was asked of what."""
    params = run.config["parameters"]
    return {
        "model": f"{run.model['name']}, {run.model['parameters']:,} parameters, {params['dtype']}",
        "tasks": f"{run.data['name']} ({run.data['harness']})",
        "questions": f"{run.data['documents']} in all; {', '.join(map(str, params['shots']))} examples before each",
    }


def subject(run: Run) -> list[str]:
    """What was asked, in a line each."""
    found = [f"{name}: {one['documents']} questions, {one['source']}" for name, one in run.data["tasks"].items()]
    return [f"model: {run.model['name']}", *found]


def reservation(summary: dict[str, Any]) -> str:
    """What a run that is not for citation cannot say."""
    return "So few questions cannot say what compression costs."


def counted(run: Run) -> str:
    """What was computed again when the run was verified."""
    return f"{len(run.measured())} tasks computed again from their questions"


figure_caption, picture, save = plots.caption, plots.by_task, plots.save
