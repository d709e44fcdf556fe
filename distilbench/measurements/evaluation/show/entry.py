"""What an evaluation shows, under the names by which general code asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from distilbench.measurements.evaluation.records import RANDOM
from distilbench.measurements.evaluation.show import plots, tables
from distilbench.measurements.sweep.show.entry import measured_with, page_name, subject
from distilbench.report import load
from distilbench.report import readings as of_processes
from distilbench.report.defaults import mark_of
from distilbench.report.glue import Value
from distilbench.report.tables import Table
from distilbench.runs.folder import Run

__all__ = ["mark_of", "measured_with", "page_name", "subject"]
NOTE = """\
Accuracy is over all rows, each once; F1 is scikit-learn's. Samples/s is rows over the time of reading, tokenising and
forwards, without loads and interruptions."""
NUMBERS = (
    "rows", "rows_damaged", "accuracy", "macro_f1", "weighted_f1", "batches", "total_s", "elapsed_s", "forward_s",
    "tokenise_s", "throughput_samples_per_s", "throughput_batches_per_s", "batch_ms", "tokens", "padding_share",
    "truncated_share", "processes", "load_s", "peak_rss_MiB", "peak_cuda_allocated_MiB",
)  # fmt: skip


def rows(run: Run) -> Iterator[dict[str, Any]]:
    """The cells of a run, for tables of several runs."""
    yield from run.summary["cells"]


def readings(run: Run, number: str, proof: Mapping[str, Any]) -> list[of_processes.Readings]:
    """What the process of each cell says of a number; accuracy is counted, over all rows."""
    found = of_processes.of_records(run, number, proof)
    if number != "accuracy":
        return found
    counts = {cell["cell"]: (cell["accuracy"], cell["rows"]) for cell in rows(run)}
    return [replace(one, counted=(round(share * n), n)) for one in found for share, n in [counts[one.name]]]


def cells(run: Run, summary: dict[str, Any]) -> pd.DataFrame:
    """One row per cell, as text."""
    return tables.results(summary["cells"])


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """The same of a table of several runs."""
    return tables.results(table.to_dict("records"))


def frame(run: Run) -> pd.DataFrame:
    """One row per cell, unrounded, for other programs."""
    names = ("cell", "batch_size", "length_policy", "state", *NUMBERS)
    return pd.DataFrame(
        {"run_id": run.run_id} | {name: row.get(name) for name in names} | _ends(row) for row in rows(run)
    )


def _ends(row: dict[str, Any]) -> dict[str, float | None]:
    low, high = row.get("accuracy_wilson_95") or (None, None)
    return {"accuracy_low": low, "accuracy_high": high}


def caption(table: pd.DataFrame) -> str:
    """What the numbers of a table are."""
    return "The classifier on all rows of its data, each once: quality with Wilson's interval, and rate"


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence."""
    said = [_sentence(cell) for cell in tables.evaluated(summary["cells"])]
    return f"{'; '.join(said)}." if said else "Nothing was evaluated."


def _sentence(cell: dict[str, Any]) -> str:
    at = f"{cell['throughput_samples_per_s']:.1f} samples/s at batch size {cell['batch_size']}, {cell['length_policy']}"
    if cell["confusion"] is None:
        return f"{RANDOM}; {at}, over {cell['rows']:,} rows"
    return (
        f"accuracy {cell['accuracy']:.4f} ({tables.interval(cell['accuracy_wilson_95'])}), macro F1 "
        f"{cell['macro_f1']:.4f}, weighted F1 {cell['weighted_f1']:.4f} over {cell['rows']:,} rows; {at}"
    )


def sentences(table: pd.DataFrame) -> list[str]:
    """The weakest class of each cell, and what it is taken for most."""
    found = []
    all_rows = table.to_dict("records")
    for row in tables.classified(all_rows):
        weakest = min((one for one in row["per_class"] if one["support"]), key=lambda one: (one["f1"], one["label"]))
        others = {name: n for name, n in row["confusion"][weakest["label"]].items() if n and name != weakest["label"]}
        taken = max(others, key=lambda name: (others[name], name), default="")
        taken_for = f", most often taken for {taken} ({others[taken]:,} of them)" if taken else ""
        found.append(
            f"{tables.name_of(row, all_rows)}: the weakest class is {weakest['label']}, F1 {weakest['f1']:.4f} over "
            f"{weakest['support']:,} rows{taken_for}"
        )
    return found


def details(table: pd.DataFrame, label: str) -> list[Table]:
    """Each class, and which are confused, where a run has an evaluation as a section."""
    rows = table.to_dict("records")
    return [
        Table(tables.per_class(rows), "Precision, recall and F1 of each class", f"{label}-classes"),
        Table(tables.confused(rows), "The pairs of classes that are confused most", f"{label}-confused"),
    ]


def reservation(summary: dict[str, Any]) -> str:
    """What a run that is not for citation cannot say."""
    return "One process went over the rows: its times have no interval."


def doubts(summary: dict[str, Any]) -> list[str]:
    """What was not evaluated, and what a reader must know of the numbers."""
    said = [f"{cell['cell']}: not measured ({cell['state']})" for cell in summary["cells"] if "rows" not in cell]
    return said + [f"{cell['cell']}: {doubt}" for cell in summary["cells"] for doubt in cell.get("doubts", [])]


def counted(run: Run) -> str:
    """What was computed again when the run was verified."""
    return f"{len(run.measured())} evaluations computed again from each of their predictions"


def title(run: Run) -> str:
    """What its page is about; the machine follows."""
    return f"A whole data set: {run.model['name']}"


def cited(run: Run) -> str:
    """What was measured, for a citation; the machine follows."""
    row = about(run)
    return f"Evaluation of {row['model']} ({row['source of the model']}) on {row['text']}"


def about(run: Run) -> dict[str, str | int]:
    """What was evaluated."""
    params, model, data = run.config["parameters"], run.model, run.data
    left_out = f", {data['rows_damaged']:,} more left out" if data["rows_damaged"] else ""
    return {
        "model": f"{model['name']}, {model['parameters']:,} parameters, {params['dtype']}",
        "source of the model": model["source"],
        "text": f"{data['name']}, {data['rows']:,} rows of {len(data['labels'])} labels{left_out}",
        "batch size": params["batch_size"],
    }


def numbers(run: Run) -> dict[str, Value]:
    """The numbers that prose may name: of the run, and per cell `<variant>-<length>-b<batch size>-<name>`."""
    found: dict[str, Value] = {
        "run_id": run.run_id,
        "machine": load.label(run),
        "measured_on": run.config["created"][:10],
    }
    found |= {"model": run.model["name"], "data": run.data["name"], "labels": len(run.data["labels"])}
    for row in rows(run):
        where = f"{row['variant']}-{row['length_policy']}-b{row['batch_size']}"
        known = {name: row.get(name) for name in NUMBERS} | _ends(row)
        known |= {f"batch_{name}_ms": value for name, value in (row.get("batch_times_ms") or {}).items()}
        found |= {f"{where}-{name}": value for name, value in known.items() if value is not None}
    return found


def figure_caption(run: Run, figure: str) -> str | None:
    """What a figure of a page shows; None where the run has nothing to show there."""
    return plots.caption(load.table([run]).to_dict("records")) if figure.endswith(f"-{plots.FIGURE}") else None
